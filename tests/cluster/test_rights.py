"""What the installed operator may do, asked of the API server itself."""

import json

import pytest
from support.cluster import ROOT, Cluster
from support.kubectl import Kubectl, KubectlError

pytestmark = pytest.mark.cluster


def _install(cluster: Cluster, release: str, namespace: str, *values: str) -> str:
    """Everything but running pods; returns the service account's user name."""
    chart = str(ROOT / "charts/reranker-operator")
    cluster.helm("upgrade", "--install", release, chart, "-n", namespace, "--create-namespace",
                 "--set", "image.tag=none", *values)  # fmt: skip
    return f"system:serviceaccount:{namespace}:{release}-reranker-operator"


def _may(api: Kubectl, user: str, verb: str, resource: str, namespace: str) -> bool:
    resource, _, subresource = resource.partition("/")
    extra = [f"--subresource={subresource}"] if subresource else []
    try:
        answer = api.within(namespace)("auth", "can-i", verb, resource, f"--as={user}", *extra)
    except KubectlError:
        return False
    return answer.strip() == "yes"


def test_cluster_wide_rights_are_the_least(cluster: Cluster, api: Kubectl) -> None:
    user = _install(cluster, "wide", "rights-wide")
    try:
        assert _may(api, user, "create", "deployments", api.namespace)
        assert _may(api, user, "patch", "rerankerservices/status", api.namespace)
        assert _may(api, user, "list", "events", api.namespace)
        assert _may(api, user, "patch", "pods", api.namespace)
        for resource in ("ingresses.networking.k8s.io", "networkpolicies.networking.k8s.io",
                         "poddisruptionbudgets.policy"):  # fmt: skip
            assert _may(api, user, "patch", resource, api.namespace), resource
        for verb, resource in [
            ("get", "secrets"),
            ("list", "secrets"),
            ("watch", "secrets"),
            ("create", "pods"),
            ("update", "pods"),
            ("create", "pods/exec"),
            ("update", "rerankerservices"),
            ("delete", "rerankerservices"),
            ("delete", "persistentvolumeclaims"),
            ("create", "clusterrolebindings"),
            ("impersonate", "users"),
        ]:
            assert not _may(api, user, verb, resource, api.namespace), f"{verb} {resource}"
        # Two operators would fight over each Deployment.
        with pytest.raises(KubectlError, match="invalid ownership metadata"):
            _install(cluster, "second", "rights-second")
    finally:
        cluster.helm("uninstall", "wide", "-n", "rights-wide", "--wait")


def test_rights_to_references_are_those_that_the_values_name(
    cluster: Cluster, api: Kubectl
) -> None:
    kinds = ("secrets", "configmaps")
    for value, granted in [([], ()), (["ConfigMap"], kinds[1:]), (["ConfigMap", "Secret"], kinds)]:
        values = f"references.watch={json.dumps(value)}"
        user = _install(cluster, "wide", "rights-wide", "--set-json", values)
        try:
            for kind in kinds:
                for verb in ("get", "list", "watch"):
                    expected = kind in granted
                    assert _may(api, user, verb, kind, api.namespace) is expected, (value, kind)
                for verb in ("create", "patch", "update", "delete"):
                    assert not _may(api, user, verb, kind, api.namespace), f"{verb} {kind}"
        finally:
            cluster.helm("uninstall", "wide", "-n", "rights-wide", "--wait")


def test_namespaced_mode_stays_in_its_namespaces(cluster: Cluster, api: Kubectl) -> None:
    user = _install(
        cluster, "narrow", "rights-narrow", "--set", f"watchNamespaces={{{api.namespace}}}"
    )
    try:
        assert _may(api, user, "create", "jobs", api.namespace)
        assert _may(api, user, "patch", "pods", api.namespace)
        assert not _may(api, user, "create", "jobs", "default")
        assert not _may(api, user, "patch", "pods", "default")
        assert not _may(api, user, "list", "rerankerservices", "default")
        assert not _may(api, user, "list", "nodes", "default")
        watch = f"watchNamespaces={{{api.namespace}}}"
        with pytest.raises(KubectlError, match="invalid ownership metadata"):
            _install(cluster, "second", "rights-second", "--set", watch)
        # The same release name elsewhere, for other namespaces, is in nobody's way.
        _install(cluster, "narrow", "rights-other", "--set", "watchNamespaces={rights-other}")
        cluster.helm("uninstall", "narrow", "-n", "rights-other", "--wait")
    finally:
        cluster.helm("uninstall", "narrow", "-n", "rights-narrow", "--wait")
