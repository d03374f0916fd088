//go:build tools

// Package coredns pins a program that the local cluster runs.
package coredns

import (
	_ "github.com/coredns/coredns"
)
