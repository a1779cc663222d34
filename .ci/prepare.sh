# What .ci/run and .ci/full begin with: the root of the checkout as the folder, every installed
# Python on PATH, and a fresh virtual environment, made by $python and active.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
unset PYTHONPATH PYTHONHOME VIRTUAL_ENV TOX_ENV TOXENV TOX_SKIP_ENV
export CI=true

# Pythons that pyenv installed are found by name at the end of PATH.
for folder in "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.1[1-3]*/bin; do
    if [ -d "$folder" ]; then PATH="$PATH:$folder"; fi
done
export PATH

# The Python to start with must be able to make environments and have the headers to build with.
usable='import ensurepip, os, sys, sysconfig, venv
header = os.path.join(sysconfig.get_path("include"), "Python.h")
sys.exit(sys.version_info[:2] != (3, 11) or not os.path.exists(header))'
python=
while IFS= read -r candidate; do
    if "$candidate" -c "$usable" >/dev/null 2>&1; then python=$candidate; break; fi
done < <(type -ap python3.11)
if [ -z "$python" ]; then
    echo "no python3.11 with venv and headers; on Debian: apt-get install python3-venv python3-dev" >&2
    exit 1
fi

rm -rf .tox/ci
"$python" -m venv .tox/ci
# shellcheck source=/dev/null
. .tox/ci/bin/activate
