"""Asks a time-stamping authority for a time stamp with pyHanko, and validates the token.

Usage: time_stamp.py URL ROOT

ROOT is the certificate that the authority's comes from, in DER. The exit code is 0 only if pyHanko takes the token as intact, valid and trusted.
"""

import asyncio
import hashlib
import sys
from pathlib import Path

from asn1crypto import x509
from pyhanko.sign.timestamps import HTTPTimeStamper
from pyhanko.sign.validation.generic_cms import validate_tst_signed_data
from pyhanko_certvalidator import ValidationContext


async def main(url, root):
    digest = hashlib.sha256(b"some data").digest()
    token = await HTTPTimeStamper(url).async_timestamp(digest, "sha256")
    context = ValidationContext(trust_roots=[x509.Certificate.load(Path(root).read_bytes(), strict=True)], allow_fetching=False)
    status = await validate_tst_signed_data(token["content"], context, lambda _: digest)
    print(status)
    return 0 if status["intact"] and status["valid"] and status["trust_problem_indic"] is None else 1


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    sys.exit(asyncio.run(main(*sys.argv[1:])))
