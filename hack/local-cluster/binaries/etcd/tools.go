//go:build tools

// Package etcd pins a program that the local cluster runs.
package etcd

import (
	_ "go.etcd.io/etcd/server/v3"
)
