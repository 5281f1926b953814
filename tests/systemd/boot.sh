#!/bin/bash
# Usage: boot.sh FOLDER, as root, below: unshare --mount --pid --cgroup --ipc --uts --fork --kill-child
# Boots this machine's systemd as process 1 of new namespaces, over a copy-on-write view of the disk, and runs
# FOLDER/script there with bash. Only writes to FOLDER are visible on both sides.
set -eu
folder=$1
lab=$folder/lab
mount --make-rprivate /
mkdir -p "$lab"
mount -t tmpfs tmpfs "$lab"
mkdir "$lab/upper" "$lab/work" "$lab/root"
root=$lab/root
mount -t overlay overlay -o "lowerdir=/,upperdir=$lab/upper,workdir=$lab/work" "$root"

mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs tmpfs "$root/run"
# A new /dev, because the journal creates its socket in /dev.
mount -t tmpfs tmpfs "$root/dev"
for node in null zero full random urandom tty; do
    touch "$root/dev/$node"
    mount --bind "/dev/$node" "$root/dev/$node"
done
mkdir "$root/dev/shm" "$root/dev/pts"
mount -t tmpfs tmpfs "$root/dev/shm"
mkdir -p "$root$folder"
mount --bind "$folder" "$root$folder"
for place in $(findmnt --noheadings --list --output TARGET --types ext4,xfs,btrfs,overlay | grep -v -e '^/$' -e "^$lab"); do
    mount --bind "$place" "$root$place" 2>/dev/null || true
done

# Only the units that the test needs are started.
units=$root/etc/systemd/system
mkdir -p "$units/lab.target.wants"
for target in sysinit basic network-online; do
    printf '[Unit]\nDescription=%s, empty\nDefaultDependencies=no\n' "$target" > "$units/$target.target"
done
# Without this line, a folder below /tmp starts tmp.mount, which hides the files in /tmp.
ln -sf /dev/null "$units/tmp.mount"
printf '[Unit]\nDescription=lab\nDefaultDependencies=no\nAllowIsolate=yes\n' > "$units/lab.target"
cat > "$units/lab.service" <<UNIT
[Unit]
DefaultDependencies=no
After=systemd-journald.service
# The end of the script is the end of the machine.
SuccessAction=exit-force
FailureAction=exit-force
Wants=systemd-journald.service
[Service]
Type=oneshot
Environment=PATH=$PATH
ExecStart=/bin/bash "$folder/script"
StandardOutput=append:$folder/output
StandardError=inherit
UNIT
ln -s ../lab.service "$units/lab.target.wants/lab.service"
export container=lab
exec chroot "$root" /lib/systemd/systemd --system --unit=lab.target --log-target=journal --show-status=no
