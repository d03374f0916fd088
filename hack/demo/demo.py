"""`make demo`, `make demo-url` and `make demo-down`."""

import argparse
import sys
import time

import forward
from ask import three_questions
from shell import CLUSTER, ROOT, DemoError, answers, image_id, output, run, say, step
from watch import until_ready

_SERVICE, _NAMESPACE, _SYSTEM = "demo", "default", "reranker-system"
_TAG, _PREFIX = "dev", "localhost/reranker-operator"


def install(tag: str) -> None:
    """Both charts, with the images that were just built."""
    helm = ("helm", "upgrade", "--install", "--namespace", _SYSTEM, "--create-namespace")
    built = image_id(f"{_PREFIX}/operator:{tag}")
    # The tag stays the same when the image is built anew; its id makes the pods start over.
    images = (
        "--set", f"image.tag={tag}", "--set", f"images.tag={tag}",
        "--set-string", f"podAnnotations.reranker\\.dev/image={built}",
    )  # fmt: skip
    for release, values in (("reranker-operator-crds", ()), ("reranker-operator", images)):
        output(*helm, release, f"charts/{release}", *values, "--wait", "--timeout", "2m")
        say(f"   {release} is installed in {_SYSTEM}")
    label = "pod-security.kubernetes.io/enforce=restricted"
    output("kubectl", "label", "namespace", _SYSTEM, "--overwrite", label)


def demo() -> None:
    """Every step of the way."""
    started = time.monotonic()
    with step("A Kubernetes cluster"):
        run(CLUSTER, "up")
    with step("Images: operator, engine-builder, gateway, triton, demo model"):
        run(ROOT / "hack/images/build")
    with step("helm install reranker-operator"):
        install(_TAG)
    with step("kubectl apply -f manifests/samples/demo.yaml"):
        run("kubectl", "apply", "-n", _NAMESPACE, "-f", "manifests/samples/demo.yaml")
        until_ready(_SERVICE, _NAMESPACE)
    with step("Three questions through the Service"):
        url = forward.start(_SERVICE, _NAMESPACE)
        three_questions(url)
    say()
    say(output("kubectl", "get", "rr,rre,pods", "-n", _NAMESPACE))
    _go_on(url)
    say(f"make demo took {time.monotonic() - started:.0f} s")


def _go_on(url: str) -> None:
    say("Go on:")
    say('  eval "$(hack/local-cluster/cluster env)"     # kubectl for this cluster')
    say("  kubectl get rr -w")
    say("  kubectl describe rr demo")
    say(f"  curl -s {url}/v1/models")
    say("  kubectl scale rr demo --replicas=2")
    say("  make demo-down                               # remove the demo, keep the cluster")
    say("  make cluster-down                            # remove everything")
    say()
    say(f"Ranking API: {url}/v1/ranking")


def down() -> None:
    """The demo's service and, unless somebody else uses them, operator and CRDs.

    The cluster and the images stay.
    """
    forward.stop()
    if not answers("kubectl", "get", "namespace", _NAMESPACE):
        raise DemoError("no cluster answers here; nothing to remove")
    if answers("kubectl", "get", "crd", "rerankerservices.reranker.dev"):
        sample = "manifests/samples/demo.yaml"
        run("kubectl", "delete", "-n", _NAMESPACE, "-f", sample, "--ignore-not-found", "--wait")
        others = output("kubectl", "get", "rr", "--all-namespaces", "-o", "name").split()
        if others:
            say(f"The demo's service is gone. {len(others)} other RerankerServices are here, so")
            say("the operator and its CRDs stay: `kubectl get rr -A` lists them.")
            return
        run("kubectl", "delete", "rre", "--all", "-n", _NAMESPACE, "--wait")
    for release in ("reranker-operator", "reranker-operator-crds"):
        run("helm", "uninstall", release, "-n", _SYSTEM, "--ignore-not-found", "--wait")
    run("kubectl", "delete", "namespace", _SYSTEM, "--ignore-not-found", "--wait")
    say("The demo is gone; `make cluster-down` removes the cluster.")


def print_url() -> None:
    """The address of a running demo. Raises DemoError."""
    url = forward.address()
    if url is None:
        raise DemoError("the demo does not run; start it with `make demo`")
    say(f"{url}/v1/ranking")


def main() -> int:
    """Exit code 1 with one line for what went wrong."""
    parser = argparse.ArgumentParser(prog="hack/demo", description=__doc__)
    parser.add_argument("command", choices=["run", "url", "down", "install"])
    command = parser.parse_args().command
    try:
        if command == "run":
            demo()
        elif command == "install":
            install(_TAG)
        elif command == "down":
            down()
        else:
            print_url()
    except DemoError as error:
        say(f"demo: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
