//go:build tools

// Package kustomize pins a program that the local cluster runs.
package kustomize

import (
	_ "sigs.k8s.io/kustomize/kustomize/v5"
)
