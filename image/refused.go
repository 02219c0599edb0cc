package image

// RefusedError says that an image cannot be wrapped as it is.
type RefusedError struct {
	Problem string
	Remedy  string
}

func (e *RefusedError) Error() string { return e.Problem }

// Hint says what to do about it.
func (e *RefusedError) Hint() string { return e.Remedy }
