package image

import (
	"context"
	"errors"

	"github.com/imgwrap/imgwrap/image/python"
)

// Inspection is what is in an image, without any decision about it.
type Inspection struct {
	Version   int    `json:"version"` // PlanVersion
	Image     string `json:"image"`
	Digest    string `json:"digest"`
	MediaType string `json:"media_type"`

	*ImageInspection // nil for an index

	Images []IndexedInspection `json:"images,omitempty"` // of an index, those that may be wrapped
	Kept   []Kept              `json:"kept,omitempty"`   // of an index, everything else
}

// IndexedInspection is what is in an image of an index.
type IndexedInspection struct {
	Digest string `json:"digest"`
	*ImageInspection
}

// ImageInspection is what is in an image of one platform.
type ImageInspection struct {
	Platform   string   `json:"platform"`
	Entrypoint []string `json:"entrypoint"`
	Cmd        []string `json:"cmd"`
	WorkingDir string   `json:"working_dir"`
	User       string   `json:"user"`

	// Wrapped is set for an image that imgwrap made.
	Wrapped *Wrapped `json:"wrapped,omitempty"`

	// Problem says why no interpreter was found, or none could be chosen; what
	// follows is empty then.
	Problem       string         `json:"problem,omitempty"`
	Interpreter   *Interpreter   `json:"interpreter,omitempty"`
	Command       *Command       `json:"command,omitempty"`
	Django        *Django        `json:"django,omitempty"`
	Sites         []string       `json:"sites"` // of sys.path, without the standard library
	Distributions []Distribution `json:"distributions"`
	Shadowed      []Distribution `json:"shadowed"`     // never imported: another of that name comes first
	Interpreters  []Installation `json:"interpreters"` // every Python in the image
	Warnings      []string       `json:"warnings"`
}

// Wrapped is what the labels of a wrapped image say.
type Wrapped struct {
	Source  string `json:"source"` // repository@digest
	Release string `json:"release"`
	Version string `json:"version"` // imgwrap's
}

// Distribution is an installed distribution package.
type Distribution struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Path    string `json:"path"` // of its metadata
}

// Installation is a Python in an image, whether the command starts it or not.
type Installation struct {
	Interpreter
	Sites         []string `json:"sites"`
	Distributions int      `json:"distributions"`
}

// Inspect looks into an image, or those of an index. An image without Python,
// or with several interpreters of which none can be told to be the one, is no
// error here. Of a wrapped image it shows the source.
func (w *Wrapper) Inspect(ctx context.Context, ref, interpreter string, platforms []string) (*Inspection, error) {
	t, err := w.open(ctx, ref)
	if err != nil {
		return nil, err
	}
	defer t.source.Close()
	in, err := w.inspect(ctx, t, interpreter, platforms)
	return in, about(ref, err)
}

func (w *Wrapper) inspect(ctx context.Context, t *target, interpreter string, platforms []string) (*Inspection, error) {
	if err := t.root.choose(platforms); err != nil {
		return nil, err
	}
	images := t.root.images()
	if err := w.read(ctx, t.source, images, func() error { return nil }); err != nil {
		return nil, err
	}
	in := &Inspection{
		Version:   PlanVersion,
		Image:     t.source.Reference.Name(),
		Digest:    t.source.Root.Digest.String(),
		MediaType: string(t.source.Root.MediaType),
	}
	for _, n := range images {
		found, err := n.inspect(interpreter)
		if err != nil {
			return nil, err
		}
		if t.root.children == nil {
			in.ImageInspection = found
		} else {
			in.Images = append(in.Images, IndexedInspection{n.opened.Digest.String(), found})
		}
	}
	t.root.each(func(n *node) {
		if n.kept != "" && !n.missing {
			in.Kept = append(in.Kept, Kept{n.name(), n.kept})
		}
	})
	return in, nil
}

func (n *node) inspect(interpreter string) (*ImageInspection, error) {
	src := n.source
	c := src.parsed.Config
	in := &ImageInspection{
		Platform:      platform(src.parsed).String(),
		Entrypoint:    list(c.Entrypoint),
		Cmd:           list(c.Cmd),
		WorkingDir:    c.WorkingDir,
		User:          c.User,
		Sites:         []string{},
		Distributions: []Distribution{},
		Shadowed:      []Distribution{},
		Interpreters:  []Installation{},
		Warnings:      []string{},
	}
	if labels := n.opened.Config.Config.Labels; labels[LabelOrigin] != "" {
		in.Wrapped = &Wrapped{labels[LabelSource], labels[LabelRelease], labels[LabelVersion]}
	}
	for _, i := range python.Interpreters(src.pythonConfig(), src.files) {
		in.Interpreters = append(in.Interpreters, Installation{newInterpreter(i.Interpreter), list(i.Sites), i.Distributions})
	}
	env, err := src.inspect(interpreter)
	var none *python.NoPythonError
	var several *python.AmbiguousError
	switch {
	case errors.As(err, &none), errors.As(err, &several):
		in.Problem = err.Error()
		return in, nil
	case err != nil:
		return nil, err
	}
	i, command := newInterpreter(env.Interpreter), newCommand(env.Command)
	in.Interpreter, in.Command, in.Django = &i, &command, newDjango(env.Django)
	in.Sites, in.Warnings = list(env.Sites), list(env.Warnings)
	in.Distributions = distributions(env.Distributions)
	in.Shadowed = distributions(env.Shadowed)
	return in, nil
}

func distributions(found []python.Distribution) []Distribution {
	list := []Distribution{}
	for _, d := range found {
		list = append(list, Distribution{d.Name, d.Version, d.Path})
	}
	return list
}
