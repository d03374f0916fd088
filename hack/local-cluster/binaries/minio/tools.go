//go:build tools

// Package minio pins a server that tests start.
package minio

import (
	_ "github.com/minio/minio"
)
