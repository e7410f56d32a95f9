#!/bin/bash
# What `tests/nested.sh demo` runs in dom0.
set -euo pipefail
xl info
xl list
