#!/bin/sh
# The steps of the image, one verb each. The Containerfile runs them, and tests run them where no image can be built:
#
#   steps.sh wheel SOURCE OUT      the project's wheel, in the folder OUT
#   steps.sh install OUT TARGET    the wheel and what it needs into TARGET, a folder of Python packages
#   steps.sh strip TARGET          what no planner in a pod runs is taken out; what is left is compiled once
#   steps.sh check TARGET          the commands start, and what must not be there is not
#   steps.sh profiler OUT VENV     the wheel beside vLLM's own packages, for the profiling image
#
# PYTHON is the interpreter (python3), PIP_ARGS more arguments of pip.
set -eu
PYTHON="${PYTHON:-python3}"

# Only for replays and drawings, which are laptop commands (`planner whatif`, `profiler report`): half of the size.
LEFT_OUT="numba llvmlite plotly _plotly_utils"

wheel() {
  # shellcheck disable=SC2086
  "$PYTHON" -m pip wheel --quiet --no-deps --wheel-dir "$2" ${PIP_ARGS:-} "$1"
}

install_() {
  # shellcheck disable=SC2086
  "$PYTHON" -m pip install --quiet --no-compile --no-cache-dir --target "$2" ${PIP_ARGS:-} "$1"/plimsoll-*.whl
}

strip_() {
  for package in $LEFT_OUT; do
    rm -rf "${1:?}/$package" "$1"/"$package"-*.dist-info "$1"/"$package".libs
  done
  # Tests that packages bring along, and sources of what is compiled.
  find "$1" -type d \( -name tests -o -name test \) -prune -exec rm -rf {} +
  find "$1" -type f \( -name '*.pyx' -o -name '*.pxd' -o -name '*.c' -o -name '*.h' -o -name '*.f90' -o -name '*.a' \) \
    -delete
  # The asynchronous half of the cluster's client, as large as the other.
  rm -rf "$1"/kubernetes/aio
  # A read-only file system cannot keep compiled modules: they are compiled here, valid whatever the files' times.
  "$PYTHON" -m compileall -q -j 0 --invalidation-mode unchecked-hash "$1"
}

check() {
  export PYTHONPATH="$1" PYTHONDONTWRITEBYTECODE=1
  "$PYTHON" -m planner --help >/dev/null
  "$PYTHON" -m planner run --help >/dev/null
  "$PYTHON" -m profiler gather --help >/dev/null
  for package in torch $LEFT_OUT; do
    if [ -e "$1/$package" ]; then
      echo "$package is in $1" >&2
      exit 1
    fi
  done
}

profiler_() {
  # vLLM's packages are seen and not changed; what it lacks, or has in a version that does not do, lies in VENV.
  "$PYTHON" -m venv --system-site-packages "$2"
  # shellcheck disable=SC2086
  "$2"/bin/pip install --quiet --no-cache-dir ${PIP_ARGS:-} "$1"/plimsoll-*.whl
}

verb="${1:?a verb: wheel, install, strip, check or profiler}"
shift
case "$verb" in
  wheel) wheel "$@" ;;
  install) install_ "$@" ;;
  strip) strip_ "$@" ;;
  check) check "$@" ;;
  profiler) profiler_ "$@" ;;
  *) echo "no verb $verb" >&2; exit 2 ;;
esac
