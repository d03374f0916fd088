//go:build tools

// Package registry pins a server that tests start.
package registry

import (
	_ "github.com/distribution/distribution/v3/cmd/registry"
)
