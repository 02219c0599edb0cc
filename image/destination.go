package image

import (
	"fmt"
	"strings"
	"text/template"

	"github.com/google/go-containerregistry/pkg/name"

	"github.com/imgwrap/imgwrap/image/registry"
)

// DefaultSuffix is what the wrapped image's tag has more than the source's.
const DefaultSuffix = "-otel"

// Destination says where the wrapped image goes.
type Destination struct {
	// Tag is a tag in the source's repository, a whole reference, or a
	// template of either with the fields .Repository (with its registry),
	// .Tag and .Digest of the source. Empty: the source's tag and
	// [DefaultSuffix].
	Tag string
	// InPlace moves the source's own tag to the wrapped image.
	InPlace bool
}

// UsageError is a request that makes no sense as it stands.
type UsageError struct {
	Problem string
	Remedy  string
}

func (e *UsageError) Error() string { return e.Problem }

// Hint says how to ask instead.
func (e *UsageError) Hint() string { return e.Remedy }

// resolve returns the reference that will name the wrapped image. The source's
// own is only ever returned if it was asked for with InPlace, or if rewrap says
// that it holds a wrapped image already.
func (d Destination) resolve(c *registry.Client, source registry.Reference, digest string, rewrap bool) (registry.Reference, error) {
	pinned := source.Tag() != "" && source.Digest() != ""
	movable := source.Digest() == "" && (source.Tag() != "" || source.Path != "")
	if d.InPlace || (rewrap && d.Tag == "") {
		switch {
		case d.InPlace && d.Tag != "":
			return registry.Reference{}, &UsageError{"--tag and --in-place exclude each other", "leave one of them out"}
		case d.InPlace && pinned:
			return registry.Reference{}, &UsageError{fmt.Sprintf("%s is named by its digest: its tag may stand for another image", source), "name the image by its tag alone, or give --tag"}
		case pinned:
			return c.WithTag(source, source.Tag())
		case !movable:
			return registry.Reference{}, &UsageError{fmt.Sprintf("%s has no tag to move", source), "name the image by its tag, or give --tag"}
		}
		return source, nil
	}
	if d.Tag == "" {
		if source.Tag() == "" {
			return registry.Reference{}, &UsageError{fmt.Sprintf("%s has no tag, and the wrapped image needs one", source), "give one with --tag"}
		}
		d.Tag = source.Tag() + DefaultSuffix
	}
	to, err := expand(d.Tag, source.Repository(), source.Tag(), digest)
	if err != nil {
		return registry.Reference{}, err
	}
	var dst registry.Reference
	if strings.ContainsAny(to, ":/") {
		dst, err = c.ParseReference(to)
	} else {
		dst, err = c.WithTag(source, to)
	}
	if err == nil && dst.Transport == registry.InRegistry {
		// A registry's reference without a tag would be the tag latest.
		_, err = name.NewTag(dst.String(), name.StrictValidation)
	}
	if err != nil {
		return registry.Reference{}, &UsageError{fmt.Sprintf("destination %q: %v", to, err), "give a tag, or a whole reference such as registry/app:tag"}
	}
	if dst.Name() == source.Name() {
		return registry.Reference{}, &UsageError{fmt.Sprintf("%s would overwrite the source", dst), "give another --tag, or --in-place if that is what you want"}
	}
	return dst, nil
}

func expand(text, repository, tag, digest string) (string, error) {
	if !strings.Contains(text, "{{") {
		return text, nil
	}
	fail := func(err error) (string, error) {
		return "", &UsageError{fmt.Sprintf("destination template %q: %v", text, err), "its fields are .Repository, .Tag and .Digest"}
	}
	t, err := template.New("tag").Option("missingkey=error").Parse(text)
	if err != nil {
		return fail(err)
	}
	var b strings.Builder
	if err := t.Execute(&b, struct{ Repository, Tag, Digest string }{repository, tag, digest}); err != nil {
		return fail(err)
	}
	return b.String(), nil
}
