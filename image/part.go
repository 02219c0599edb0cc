package image

import "fmt"

// A PartError says that some of several images could not be wrapped. Each has
// been reported by itself.
type PartError struct {
	Failed, Of int
	NotStarted int // because it was ended before
}

func (e *PartError) Error() string {
	switch {
	case e.NotStarted == 0:
		return fmt.Sprintf("%d of %d images could not be wrapped", e.Failed, e.Of)
	case e.Failed == 0:
		return fmt.Sprintf("%d of %d images were not begun or not finished", e.NotStarted, e.Of)
	}
	return fmt.Sprintf("%d of %d images could not be wrapped, and %d were not begun or not finished", e.Failed, e.Of, e.NotStarted)
}
