#!/bin/sh
# Become systemd-nspawn with a whole systemd inside. Run by real_systemd.py, in a mount namespace of
# its own: whatever is mounted here is gone when the last process in it is.
#
#   real_systemd.sh LOWER SCRATCH CGROUP NAME [ARGUMENT OF systemd-nspawn]...
#
# LOWER is the tree to boot; it is never written to. SCRATCH is an empty directory. CGROUP is an
# empty control group (version 2), the only one that anything inside will see.
set -eu
lower=$1 scratch=$2 cgroup=$3 name=$4
shift 4

# Join before anything is started, or it would count as the caller's.
echo 0 >"$cgroup/cgroup.procs"

mount -t tmpfs -o size=1g,mode=755 tmpfs "$scratch"
mkdir "$scratch/upper" "$scratch/work" "$scratch/root"
root=$scratch/root
mount -t overlay -o "lowerdir=$lower,upperdir=$scratch/upper,workdir=$scratch/work" \
	overlay "$root"
# systemd-nspawn keeps locks and sockets in /run; they shall not stay behind either.
mount -t tmpfs -o mode=755 tmpfs /run

# A machine id that is known means no "first boot", which would ask and enable things.
rm -f "$root/etc/machine-id" "$root/var/lib/dbus/machine-id" "$root/etc/hostname"
tr -d - </proc/sys/kernel/random/uuid >"$root/etc/machine-id"
echo "$name" >"$root/etc/hostname"

# What the tree's owner enabled is not wanted, nor is what manages hardware or a network.
units=$root/etc/systemd/system
rm -rf "$units"/*.wants "$units"/*.requires "$root/var/log/journal"
for unit in \
	console-getty.service dev-hugepages.mount getty.target nftables.service \
	proc-sys-fs-binfmt_misc.automount systemd-firstboot.service systemd-initctl.socket \
	systemd-journal-flush.service systemd-machine-id-commit.service \
	systemd-network-generator.service systemd-networkd.service systemd-networkd.socket \
	systemd-resolved.service systemd-sysctl.service systemd-sysusers.service \
	systemd-timesyncd.service systemd-udev-trigger.service systemd-udevd.service \
	systemd-update-utmp-runlevel.service systemd-update-utmp.service; do
	ln -sfn /dev/null "$units/$unit"
done
mkdir -p "$root/etc/systemd/journald.conf.d"
printf '[Journal]\nStorage=volatile\nRateLimitIntervalSec=0\n' \
	>"$root/etc/systemd/journald.conf.d/test.conf"

# No PID 1 but the one inside learns of this machine; and it has only version 2 of control groups.
export SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1
exec systemd-nspawn --quiet --register=no --keep-unit --notify-ready=yes --machine="$name" \
	--directory="$root" --private-network --link-journal=no --resolv-conf=off --timezone=off \
	--console=pipe "$@" --boot systemd.unit=basic.target systemd.show_status=no
