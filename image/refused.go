package image

import (
	"errors"

	"github.com/imgwrap/imgwrap/image/instrument"
	"github.com/imgwrap/imgwrap/image/python"
	"github.com/imgwrap/imgwrap/image/registry"
	"github.com/imgwrap/imgwrap/image/rewrite"
)

// RefusedError says that an image cannot be wrapped as it is.
type RefusedError struct {
	Problem string
	Remedy  string
}

func (e *RefusedError) Error() string { return e.Problem }

// Hint says what to do about it.
func (e *RefusedError) Hint() string { return e.Remedy }

// IsRefused says whether an error is about an image that cannot be wrapped as it
// is, rather than about something that failed.
func IsRefused(err error) bool {
	var (
		refused     *RefusedError
		setting     *SettingError
		noRelease   *instrument.NoReleaseError
		noPython    *python.NoPythonError
		ambiguous   *python.AmbiguousError
		unsupported *registry.UnsupportedError
		layers      *rewrite.LayerLimitError
	)
	return errors.As(err, &setting) && setting.Origin == OriginImage ||
		errors.As(err, &refused) || errors.As(err, &noRelease) || errors.As(err, &noPython) ||
		errors.As(err, &ambiguous) || errors.As(err, &unsupported) || errors.As(err, &layers)
}
