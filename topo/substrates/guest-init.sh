#!/bin/sh
# The first process of the guest kernel. Mounts what a Linux program expects, runs $QNTN_DIR/guest/job.sh with its
# output on files of the machine outside, leaves the exit status beside them, and powers the guest off.
# The root file system is the machine's own, read-only; only $QNTN_DIR can be written.
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs tmpfs /run
mkdir -p /dev/pts /dev/shm /run/tmp /run/home /run/netns
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t hostfs none "$QNTN_DIR" -o "$QNTN_DIR"
ip link set lo up
TMPDIR=/run/tmp HOME=/run/home
export TMPDIR HOME
guest=$QNTN_DIR/guest
uname -r >"$guest/kernel"
if [ "$QNTN_INTERACTIVE" = 1 ]; then
    setsid -c /bin/sh "$guest/job.sh" </dev/tty0 >/dev/tty0 2>&1
else
    /bin/sh "$guest/job.sh" >"$guest/stdout" 2>"$guest/stderr" </dev/null
fi
echo $? >"$guest/exit.partial"
mv "$guest/exit.partial" "$guest/exit"
sync
echo o >/proc/sysrq-trigger
# Powering off is asynchronous; the kernel panics when its first process ends before.
sleep 60
