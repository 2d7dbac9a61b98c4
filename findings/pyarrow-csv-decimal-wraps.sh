#!/bin/sh
# pyarrow's CSV reader: a number with more digits before the point than decimal128 has room for becomes another number.
#
# Software   pyarrow 26.0.1 and 18.0.0
# Input      a CSV of one column, read as decimal128(38, 18): 20 digits before the point, 18 behind it. Rows: a number
#            that fits; one with 19 digits behind the point; one with 25 digits before it
# Expected   the first as it stands; an error for each of the others, as the reader and pa.array() raise it elsewhere
# Seen       the first is right; the second raises ArrowInvalid ("would cause data loss"); the third is read without a
#            word as 23462934292043567222.424237544928837632: its digits times 10^18, cut to 128 bits. With 21 digits it
#            has the right value in a type that does not allow it
# Way out    look for a run of more digits than fit, and for exponents, before the text is given to the reader
#
# Installs the packages into temporary folders; needs Python 3.11 or 3.12 and a package index.
# Exits 0 where it is as described, 1 where that has changed, 2 where it cannot be told.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

cat >try.py <<'END'
import sys
from decimal import Decimal

import pyarrow as pa
from pyarrow import csv


def read(number):
    options = csv.ConvertOptions(column_types={"price": pa.decimal128(38, 18)})
    try:
        table = csv.read_csv(pa.py_buffer(f"price\n{number}\n".encode()), convert_options=options)
    except pa.ArrowInvalid as error:
        return str(error).endswith("value would cause data loss")
    return table["price"][0].as_py()


seen = [read("99999999999999999999.5"), read("1.1234567890123456789"), read("1234567890123456789012345.5")]
described = [
    Decimal("99999999999999999999.5"),
    True,
    Decimal("23462934292043567222.424237544928837632"),
]
print(f"pyarrow {pa.__version__}:", *seen, sep="\n  ")
sys.exit(1 if seen != described else 0)
END

for version in 26.0.1 18.0.0; do
    "${PYTHON:-python3}" -m venv "venv-$version" >log 2>&1 &&
        "venv-$version/bin/python" -m pip install --quiet "pyarrow==$version" >log 2>&1 || { cat log >&2; exit 2; }
    "venv-$version/bin/python" try.py || exit 1
done
