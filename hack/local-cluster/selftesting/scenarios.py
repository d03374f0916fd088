"""What is proven, in the order of running; each scenario is one function."""

from __future__ import annotations

import os
import signal
import ssl
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

from localcluster import archives
from localcluster.system_images import BUSYBOX
from selftesting.clusters import NAMESPACE, TestedCluster, check, eventually, fetch, free_port

_KILL_POINTS = ("making node", "starting kube-apiserver", "pause:", "starting kubelet")


def comes_up(cluster: TestedCluster) -> None:
    """A cluster comes up from nothing and every component is ready."""
    cluster.run("up")
    report = cluster.run("status")
    check("NOT READY" not in report, "every component is ready")


def runs_pods(cluster: TestedCluster) -> None:
    """Pods, volume, Service, DNS, exec, logs, port-forward; and all of it from the host."""
    cluster.apply_workload()
    address, node_port = cluster.service()
    check(
        f"Address: {address}" in cluster.exec("nslookup web." + NAMESPACE + ".svc.cluster.local"),
        "a pod resolves the Service",
    )
    check(
        cluster.exec("timeout 5 wget -qO- http://web/health").strip() == "ready",
        "a pod reaches the Service by its name",
    )
    check(fetch(f"http://{address}/health") == "ready", "the host reaches the Service")
    check(
        fetch(f"http://{cluster.node_address()}:{node_port}/health") == "ready",
        "the host reaches the node port",
    )
    logs = cluster.kubectl("logs", f"--namespace={NAMESPACE}", "deployment/web")
    check("response:200" in logs, "logs are there")
    _check_port_forward(cluster)


def _check_port_forward(cluster: TestedCluster) -> None:
    port = free_port()
    with subprocess.Popen(
        [
            *(cluster.layout.bin / "kubectl", f"--kubeconfig={cluster.layout.kubeconfig}"),
            *("port-forward", f"--namespace={NAMESPACE}", "service/web", f"{port}:80"),
        ],
        stdout=subprocess.DEVNULL,
    ) as forward:
        url = f"http://127.0.0.1:{port}/health"
        try:
            eventually("port-forward works", lambda: fetch(url) == "ready")
        finally:
            forward.terminate()


def is_guarded(cluster: TestedCluster) -> None:
    """Pod Security is enforced, nobody is anonymous, keys are for root alone."""
    attempt = subprocess.run(
        [
            *(cluster.layout.bin / "kubectl", f"--kubeconfig={cluster.layout.kubeconfig}"),
            *("run", "root", f"--namespace={NAMESPACE}", f"--image={BUSYBOX}", "--privileged"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    check("violates PodSecurity" in attempt.stderr, "a privileged pod is refused")
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
    )
    try:
        opener.open(f"https://{cluster.node_address()}:6443/version", timeout=5)
        status = 200
    except urllib.error.HTTPError as error:
        status = error.code
    check(status == 401, "without credentials the API server answers 401")
    keys = [cluster.layout.kubeconfig, *cluster.layout.pki.iterdir()]
    check(all(path.stat().st_mode & 0o077 == 0 for path in keys), "keys are for root alone")


def up_is_idempotent(cluster: TestedCluster) -> None:
    """A second ``up`` on a healthy cluster changes nothing and is quick."""
    before = _state(cluster)
    check("is up already" in cluster.run("up"), "a second up finds everything there")
    check(_state(cluster) == before, "and changes nothing")


def _state(cluster: TestedCluster) -> object:
    layout = cluster.layout
    paths = [p for d in (layout.etc, layout.pki, layout.run) for p in d.rglob("*") if p.is_file()]
    files = {str(path): path.stat().st_mtime_ns for path in [*paths, layout.kubeconfig]}
    return cluster.records(), files, cluster.get("nodes")["items"][0]["metadata"]["uid"]


def loads_images(cluster: TestedCluster) -> None:
    """An image of an archive runs as a pod; loading it again does nothing."""
    name = "localhost/selftest/loaded:v1"
    archive = cluster.layout.root / "loaded.tar"
    archives.write_program_image(
        archive,
        name=name,
        program=cluster.layout.bin / "busybox",
        target="/bin/busybox",
        entrypoint=("/bin/busybox", "true"),
    )
    check(f"loaded {name}" in cluster.run("load-image", str(archive)), "an archive is loaded")
    check("there already" in cluster.run("load-image", str(archive)), "and not loaded twice")
    archive.unlink()
    cluster.kubectl(
        *("run", "loaded", "--namespace=default", f"--image={name}", "--restart=Never"),
        "--image-pull-policy=Never",
    )
    cluster.kubectl(
        *("wait", "pod/loaded", "--namespace=default", "--timeout=60s"),
        "--for=jsonpath={.status.phase}=Succeeded",
    )
    check(True, "a pod runs from it")


def restarts_one_component(cluster: TestedCluster) -> None:
    """A component that ended is started again; the others and the pods go on."""
    before, restarts = cluster.records(), cluster.restarts()
    for component in ("containerd", "kubelet", "etcd"):
        os.kill(before[component], signal.SIGKILL)
    cluster.run("up")
    after = cluster.records()
    changed = {name for name in before if before[name] != after[name]}
    check(changed == {"containerd", "kubelet", "etcd"}, "only what ended is started again")
    cluster.wait_for_workload()
    check(cluster.restarts() == restarts, "no pod was restarted")


def survives_power_loss(cluster: TestedCluster) -> None:
    """All processes gone at once: objects and volumes are there again after ``up``."""
    cluster.exec("echo kept > /data/kept")
    cluster.kill_recorded()
    report = cluster.run("up")
    check("cleared what an earlier run left" in report, "leftovers are cleared")
    cluster.wait_for_workload()
    address, _ = cluster.service()
    eventually("the Service serves", lambda: fetch(f"http://{address}/health") == "ready")
    check(fetch(f"http://{address}/kept") == "kept", "the volume kept its data")


def survives_a_killed_up(cluster: TestedCluster) -> None:
    """``up`` killed at various points, from nothing; the next one completes it."""
    for point in _KILL_POINTS:
        cluster.run("down")
        cluster.kill_up_at(point)
        cluster.run("up")
        check("NOT READY" not in cluster.run("status"), f"up completes what ended at: {point}")
    runs_pods(cluster)


def starts_over_without_etcd_data(cluster: TestedCluster) -> None:
    """Damaged etcd data is set aside with a message, and the cluster starts empty."""
    cluster.kill_recorded()
    database = cluster.layout.data / "etcd" / "member" / "snap" / "db"
    size = database.stat().st_size
    with database.open("r+b") as stream:
        stream.write(b"\xa5" * min(size, 64 * 1024))
    report = cluster.run("up")
    check("etcd cannot use its data" in report, "the loss is said")
    check(Path(cluster.layout.data, "etcd.damaged").exists(), "the damaged data is kept aside")
    runs_pods(cluster)


def is_untouched(cluster: TestedCluster, restarts: int) -> None:
    """What happened to the cluster beside this one did not reach it."""
    check("NOT READY" not in cluster.run("status"), "the other cluster is ready")
    check(cluster.restarts() == restarts, "its pods were not restarted")
    address, _ = cluster.service()
    check(fetch(f"http://{address}/health") == "ready", "and it serves")
