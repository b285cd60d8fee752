#!/bin/sh
# Runs a command as the image would run it, without a container: a root file system of its own that nothing can write to
# but /tmp and the state folder, another user's numeric id, no capabilities, no environment. Needs root, for the mounts.
#
#   unshare -m rootfs.sh PYTHON TARGET CONFIG PROFILES STATE COMMAND...
#
# PYTHON is an installation of Python (its prefix), TARGET the image's /opt/plimsoll; the network is the machine's.
set -eu
python="$1" target="$2" config="$3" profiles="$4" state="$5"
shift 5
root="$(mktemp -d)"
mount -t tmpfs -o mode=755 tmpfs "$root"
see() {
  mkdir -p "$root$2"
  mount --bind "$1" "$root$2"
  # A bind mount takes on new flags only when it is mounted again.
  mount -o "remount,bind,$3" "$root$2"
}
see /usr /usr ro
for link in bin lib lib64 sbin; do ln -s "usr/$link" "$root/$link"; done
# Where it was built for: it finds its libraries by that path.
[ "$python" = /usr ] || see "$python" "$python" ro
mkdir -p "$root/etc"
see "$target" /opt/plimsoll ro
see "$config" /etc/plimsoll ro
see "$profiles" /srv/plimsoll/profiling_results ro
chown 65532:65532 "$state"
see "$state" /var/lib/plimsoll rw
mkdir -p "$root/dev" "$root/proc" "$root/tmp"
mount --bind /proc "$root/proc"
for device in null urandom; do : >"$root/dev/$device"; mount --bind "/dev/$device" "$root/dev/$device"; done
mount -t tmpfs -o mode=1777,size=256m tmpfs "$root/tmp"
echo "127.0.0.1 localhost" >"$root/etc/hosts"
mount -o remount,ro "$root"
exec chroot "$root" /usr/bin/setpriv --reuid 65532 --regid 65532 --clear-groups --no-new-privs --bounding-set=-all \
  --inh-caps=-all /usr/bin/env -i PATH=/usr/bin:/bin HOME=/tmp PYTHONPATH=/opt/plimsoll PYTHONDONTWRITEBYTECODE=1 \
  PYTHONUNBUFFERED=1 "$@"
