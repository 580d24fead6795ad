"""A small file is written whole, also by two at the same time."""

import threading
from pathlib import Path

from localinfer.formats.durable import write_bytes


def test_many_write_one_file_at_the_same_time(tmp_path: Path) -> None:
    path, failed = tmp_path / "main", []
    contents = [bytes([65 + number]) * 5000 for number in range(4)]

    def write(data: bytes) -> None:
        try:
            for _ in range(50):
                write_bytes(path, data)
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(data,)) for data in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert path.read_bytes() in contents
    assert list(tmp_path.iterdir()) == [path]


def test_only_its_owner_reads_a_private_file(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"old")
    path.chmod(0o644)
    write_bytes(path, b"new", private=True)
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"new", 0o600)
