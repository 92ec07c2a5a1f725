#!/bin/sh
# Checks the system packages that a virtual environment needs: Python, its venv, git, and the shared
# libraries that the wheels link to but do not contain. Prints the Python to use on standard output
# and everything else on standard error. Each missing package is named on one line by its Debian
# name. As root with apt-get, the script installs it without asking.
#
#   tools/doctor.sh [python]      exit status 0 if nothing is missing
#   tools/doctor.sh browser       the same for the browser, which only the tests need
set -eu

say() { printf '%s\n' "$*" >&2; }

# need PACKAGE MESSAGE COMMAND…: if COMMAND fails, install PACKAGE and try it again, or print MESSAGE.
need() {
    package=$1 what=$2
    shift 2
    "$@" >/dev/null 2>&1 && return 0
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "$what: installing the Debian package $package"
        export DEBIAN_FRONTEND=noninteractive
        apt-get update -qq >/dev/null 2>&1 || true  # old lists may be enough: the next line shows it
        apt-get install -qq -y --no-install-recommends "$package" >/dev/null 2>&1 || true
        "$@" >/dev/null 2>&1 && return 0
        say "$what: could not install the Debian package $package"
    else
        say "$what: install the Debian package $package (apt-get install $package)"
    fi
    missing=yes
}

supported() { "$1" -c 'import sys; raise SystemExit(sys.version_info[:2] not in {(3, 11), (3, 12)})'; }
find_python() {
    for python in "$@"; do
        supported "$python" 2>/dev/null && return 0
    done
    return 1
}

# Meta-World is rendered off screen by EGL, which may use a GPU, or by OSMesa. Whether EGL has a
# driver is known only after rendering: datasets/canvas.py uses OSMesa if it has none, or names the
# packages.
find_canvas() {
    "$python" -c 'import ctypes.util as u; raise SystemExit(not any(map(u.find_library, ("EGL", "OSMesa"))))'
}
find_browser() {
    for browser in chromium chromium-headless-shell google-chrome google-chrome-stable; do
        command -v "$browser" && return 0
    done
    return 1
}

missing=no
if [ "${1:-}" = browser ]; then
    need chromium "Chromium is missing (the tests open the report in it)" find_browser
    [ $missing = no ] && exit 0 || exit 1
fi
if [ -n "${1:-}" ]; then
    find_python "$1" || { say "$1 is not a Python 3.11 or 3.12"; exit 1; }
else
    # If there is a python3 of another version, Debian's package python3 does not help.
    command -v python3 >/dev/null ||
        need python3 "Python 3.11 or 3.12 is missing" find_python python3.12 python3.11 python3
    find_python python3.12 python3.11 python3 || {
        found=$(python3 -V 2>/dev/null) && say "$found is not a Python 3.11 or 3.12: install one" \
            "(apt-get install python3.12, or uv python install 3.12)"
        say "then name it: make setup PYTHON=/path/to/python3.12"
        exit 1
    }
fi

version=$("$python" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
need "$version-venv" "$version cannot make a virtual environment" "$python" -c 'import ensurepip, venv'
need git "git is missing (DVC and the commit in every report)" git --version
for pair in libstdc++.so.6:libstdc++6 libgcc_s.so.1:libgcc-s1 libz.so.1:zlib1g; do
    library=${pair%%:*}
    need "${pair#*:}" "the shared library $library is missing" \
        "$python" -c "import ctypes; ctypes.CDLL('$library')"
done
need libosmesa6 "libEGL and libOSMesa are missing (one of them renders Meta-World)" find_canvas
[ $missing = no ] || exit 1
"$python" -c 'import sys; print(sys.executable)'
