#!/bin/sh
# Makes the node's view of the file system and then holds its namespaces open.
#
# Runs as the first process of a fresh mount and network namespace. What the
# container runtime and the kubelet insist on having at fixed places (/run,
# /var/lib/kubelet, /var/log/containers ...) is put there for them alone: the
# host sees none of it, and all of it is gone with the last process in here.
#
# usage: node-namespaces.sh CLUSTER_DIR BIN_DIR
set -eu
cluster_dir=$1
bin_dir=$2

mount -t tmpfs -o mode=755 local-cluster-run /run
mkdir -m 700 /run/etcd
mkdir /run/cluster /run/cluster-bin /run/lock /run/netns /run/sysctl
mount --bind "$cluster_dir" /run/cluster
mount --bind -o ro "$bin_dir" /run/cluster-bin

mount -t tmpfs -o mode=755 local-cluster-lib /var/lib
mkdir /var/lib/kubelet /var/lib/storage
mount --bind /run/cluster/data/kubelet /var/lib/kubelet
mount --bind /run/cluster/data/storage /var/lib/storage

mount -t tmpfs -o mode=755 local-cluster-log /var/log
mkdir /var/log/pods /var/log/containers
mount --bind /run/cluster/logs/pods /var/log/pods

# The kubelet writes these for the whole machine. It leaves alone what already
# reads as it wishes, so it is shown such files instead of the kernel's.
pretend() {
    [ -e "/proc/sys/$1" ] || return 0
    file="/run/sysctl/$(echo "$1" | tr / _)"
    echo "$2" > "$file"
    mount --bind "$file" "/proc/sys/$1"
}
pretend vm/overcommit_memory 1
pretend vm/panic_on_oom 0
pretend kernel/panic 10
pretend kernel/panic_on_oops 1
pretend kernel/keys/root_maxkeys 1000000
pretend kernel/keys/root_maxbytes 25000000

# Pods may ask for mounts that propagate from the node to containers.
mount --make-rshared /

touch /run/node-ready
exec sleep infinity
