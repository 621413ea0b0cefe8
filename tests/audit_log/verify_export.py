#!/usr/bin/env python3
"""Recomputes the chains of an exported audit log, with nothing but Python's standard library: the format of docs/audit.md, proved.

usage: verify_export.py EXPORT [STATEMENTS]

Prints the head of each chain as JSON; exit code 1 and the number of the first broken line if a line does not fit. With a folder STATEMENTS,
what each checkpoint signs is written there, with its key and its signature, for openssl to judge.
"""

import hashlib
import json
import pathlib
import sys

BEGIN, BETWEEN, END = b'{"record":', b',"hash":"', b'"}\n'


def statement(gateway: str, seq: int, digest: str) -> bytes:
    return f"Sealgate audit checkpoint\ngateway {gateway}\nseq {seq}\nsha256 {digest}\n".encode()


def main() -> int:
    statements = pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else None
    hashes: dict[str, list[str]] = {}
    with open(sys.argv[1], "rb") as export:
        for number, line in enumerate(export, 1):
            try:
                text, digest = line[len(BEGIN) : -len(END) - 64 - len(BETWEEN)], line[-len(END) - 64 : -len(END)].decode()
                assert line == BEGIN + text + BETWEEN + digest.encode() + END, "the form of the line"
                assert hashlib.sha256(text).hexdigest() == digest, "the hash of the text"
                record = json.loads(text)
                chain = hashes.setdefault(record["gateway"], ["0" * 64])
                assert record["seq"] == len(chain), "the order"
                assert record["previous"] == chain[-1], "the link to the record before"
                if record["event"] == "checkpoint":
                    signed = record["signed_seq"]
                    assert signed < record["seq"] and record["signed_hash"] == chain[signed], "what the checkpoint signs"
                    if statements:
                        stem = statements / f"{record['seq']}"
                        stem.with_suffix(".txt").write_bytes(statement(record["gateway"], signed, record["signed_hash"]))
                        stem.with_suffix(".key").write_bytes(bytes.fromhex(record["public_key"]))
                        stem.with_suffix(".sig").write_bytes(bytes.fromhex(record["signature"]))
                chain.append(digest)
            except (AssertionError, KeyError, ValueError) as error:
                print(f"line {number}: {error}")
                return 1
    for gateway, chain in hashes.items():
        print(json.dumps({"gateway": gateway, "seq": len(chain) - 1, "hash": chain[-1]}, separators=(",", ":")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
