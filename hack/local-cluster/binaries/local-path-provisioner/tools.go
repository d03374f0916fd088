//go:build tools

// Package localpathprovisioner pins a program that the local cluster runs.
package localpathprovisioner

import (
	_ "github.com/rancher/local-path-provisioner"
)
