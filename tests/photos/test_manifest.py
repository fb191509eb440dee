"""Records: lines of any content, and the record that an output has."""

import json
import tracemalloc

from hypothesis import example, given, settings
from hypothesis import strategies as st
from reports import record

from swinir.photos.manifest import MAX_LINE, RECORDS, Records, read_rows

GOOD = json.loads(record())
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats() | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
ROWS = st.dictionaries(st.sampled_from([*GOOD, "more"]), VALUES).map(lambda change: json.dumps(GOOD | change).encode())
CUT = st.integers(0, len(record())).map(lambda end: record().encode()[:end])
LINES = st.one_of(
    ROWS, CUT, st.binary(max_size=40), VALUES.map(lambda value: json.dumps(value).encode()),
    st.dictionaries(st.sampled_from([*GOOD]), VALUES).map(lambda row: json.dumps(row).encode()),
)  # fmt: skip


ODD = [b"[" * 100_000, b'{"a":' * 100_000, b"9" * 400, record().encode() + b"\0", b"\xff" + record().encode()]


@settings(max_examples=30)
@example(lines=ODD)
@given(lines=st.lists(LINES.map(lambda line: line.replace(b"\n", b" ")), max_size=8))
def test_any_line_is_a_record_or_counted_and_hides_no_other(tmp_path_factory, lines):
    path = tmp_path_factory.mktemp("records") / RECORDS
    path.write_bytes(b"\n".join([*lines, record(output="out/good.png").encode(), b""]))
    rows, invalid, end = read_rows(path)
    assert rows[-1].output == "out/good.png"
    assert len(rows) + invalid == len([line for line in lines if line.strip()]) + 1
    assert end == path.stat().st_size
    assert Records(path.parent).ignored == invalid


def test_a_repeated_key_counts_as_its_last_value(tmp_path):
    path = tmp_path / RECORDS
    path.write_text(record()[:-1] + ', "output": "out/last.png"}\n')
    assert [row.output for row in read_rows(path)[0]] == ["out/last.png"]


def test_a_line_of_any_length_takes_bounded_memory(tmp_path):
    path = tmp_path / RECORDS
    path.write_bytes(b"[" + bytes(16 * MAX_LINE) + b"\n" + record().encode() + b"\n")
    tracemalloc.start()
    rows, invalid, _ = read_rows(path)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (len(rows), invalid) == (1, 1)
    assert most < 5 * MAX_LINE


def test_half_a_line_is_read_once_it_is_whole(tmp_path):
    path, line = tmp_path / RECORDS, record(output="out/late.png").encode()
    path.write_bytes(record().encode() + b"\n" + line[:50])
    rows, invalid, end = read_rows(path)
    assert (len(rows), invalid) == (1, 0)
    path.write_bytes(record().encode() + b"\n" + line + b"\n")
    assert [row.output for row in read_rows(path, end)[0]] == ["out/late.png"]


def test_memory_holds_places_of_records_and_not_the_records(tmp_path):
    count = 3000
    lines = [record(output=f"out/{number}.png", seconds=number) for number in range(count)]
    (tmp_path / RECORDS).write_text("\n".join(lines) + "\n")
    tracemalloc.start()
    records = Records(tmp_path)
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert held < 200 * count  # bytes; a record itself takes more than 1,000
    assert records.last("out/1234.png")[0].seconds == 1234
    assert records.last("out/none.png") == (None, None)
