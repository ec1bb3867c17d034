"""Every benchmark of movierec itself runs; how fast is for `make bench` to say."""

import bench
import pytest

from movierec.data.synthetic import synthesize


@pytest.mark.slow
def test_every_case_of_movierec_runs(tmp_path, capsys):
    archive = tmp_path / "ml-20m.zip"
    synthesize(archive, scale=0.002)
    bench.prepare(archive)
    for case, contenders in bench.CASES.items():
        for who in contenders:
            if who.startswith("movierec"):
                bench.measure(case, who, str(archive))
                assert '"seconds"' in capsys.readouterr().out, f"{case}, {who}"
