package image

import "fmt"

// A PartError says that some of several images could not be wrapped. Each has
// been reported by itself.
type PartError struct {
	Failed, Of int
}

func (e *PartError) Error() string {
	return fmt.Sprintf("%d of %d images could not be wrapped", e.Failed, e.Of)
}
