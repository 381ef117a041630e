import pytest

from lground.errors import InputError
from lground.scannet import read_label_table


def test_columns_are_found_by_name_in_any_order(tmp_path):
    path = tmp_path / "labels.tsv"
    path.write_text(
        "nyu40class\tnyu40id\tid\traw_category\nlamp\t35\t79\tdesk lamp\n\t\t1189\tpotted plant\n"
    )
    table = read_label_table(path)
    assert table.raw_id == {"desk lamp": 79, "potted plant": 1189}
    assert table.nyu40_id == {"desk lamp": 35, "potted plant": 0}


def test_windows_line_ends_and_repeated_equal_rows_are_fine(tmp_path):
    path = tmp_path / "labels.tsv"
    path.write_bytes(b"\xef\xbb\xbfid\traw_category\tnyu40id\r\n2\tchair\t5\r\n2\tchair\t5\r\n")
    assert read_label_table(path).raw_id == {"chair": 2}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "has no column id or raw_category or nyu40id"),
        (b"id\traw_category\tcategory\n1\twall\twall\n", "has no column nyu40id"),
        (b"id,raw_category,nyu40id\n1,wall,1\n", "has no column"),
        (b"id\traw_category\tnyu40id\n1\twall\t1\n2\twall\t1\n", "line 3 gives 'wall'"),
        (b"id\traw_category\tnyu40id\n1\twall\t1\n1\twall\t2\n", "line 3 gives 'wall'"),
        (b"id\traw_category\tnyu40id\nwall\t1\t1\n", "line 2 has 'wall' in column id"),
        (b"id\traw_category\tnyu40id\n\twall\t1\n", "line 2 has '' in column id"),
        (b"id\traw_category\tnyu40id\n1\twall\t1.5\n", "'1.5' in column nyu40id"),
        (b"id\traw_category\tnyu40id\n1\n", "line 2 has no raw_category"),
        (b"\x89PNG\r\n\x1a\n\xff\xff", "is not text"),
    ],
)
def test_wrong_tables_are_told_in_one_line_with_exit_code_2(raw_root, tmp_path, run, content, says):
    path = tmp_path / "wrong.tsv"
    path.write_bytes(content)
    with pytest.raises(InputError):
        read_label_table(path)
    code, out, err = run("prepare", raw_root, tmp_path / "out", "--labels", path)
    assert (code, out, len(err)) == (2, "", 1) and str(path) in err[0] and says in err[0]
    assert not (tmp_path / "out").exists()
