//go:build tools

// Package keda pins KEDA, which tests run beside the operator.
package keda

import (
	_ "github.com/kedacore/keda/v2/cmd/adapter"
	_ "github.com/kedacore/keda/v2/cmd/operator"
)
