"""A one-node Kubernetes on this machine, from nothing and without Docker.

The package stands behind ``hack/local-cluster/cluster``. It runs before
anything of the project is installed, hence the standard library only.

How the parts follow each other in ``cluster up``::

    backends ─▶ prerequisites ─▶ binaries ─▶ addressing, credentials, config
             ─▶ namespaces, cgroups, network   (the node, empty)
             ─▶ components, processes          (etcd ... kube-proxy)
             ─▶ images ─▶ addons               (CoreDNS, default StorageClass)

Every cluster lives in one directory and in namespaces of its own, so that
several run side by side and none leaves a mount, an interface or an iptables
rule behind on the host.
"""
