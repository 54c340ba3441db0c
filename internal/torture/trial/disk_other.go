//go:build !linux

package trial

import "errors"

func mountSmall(string, int) error { return errors.ErrUnsupported }

func unmount(string) error { return errors.ErrUnsupported }

func chownLike(string, string) error { return errors.ErrUnsupported }
