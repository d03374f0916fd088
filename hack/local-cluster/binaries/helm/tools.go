//go:build tools

// Package helm pins a program that the local cluster runs.
package helm

import (
	_ "helm.sh/helm/v3/cmd/helm"
)
