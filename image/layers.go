package image

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/google/go-containerregistry/pkg/name"

	"github.com/imgwrap/imgwrap/image/instrument"
	"github.com/imgwrap/imgwrap/image/registry"
	"github.com/imgwrap/imgwrap/image/rewrite"
	"github.com/imgwrap/imgwrap/layer"
	"github.com/imgwrap/imgwrap/layer/catalog"
	"github.com/imgwrap/imgwrap/layer/pep508"
)

// prebuilt describes the layers that are the same in all images of a release,
// and builds none of them.
type prebuilt struct {
	bundle func(*catalog.Release) (*layer.Layer, error)
	// native is asked only for architectures for which the catalog has native
	// code, as the OCI image-spec names them: "amd64".
	native func(r *catalog.Release, architecture string) (*layer.Layer, error)
	// bytecode's error is fs.ErrNotExist if it has not been compiled for this
	// minor version of Python, "3.11".
	bytecode func(r *catalog.Release, minor string) (*layer.Layer, error)
}

// added is a layer that wrapping adds. What it brings is said in the plan and
// in the history of the image.
type added struct {
	kind   string
	brings string
	layer  *layer.Layer
	// tag names the layer where it is kept for many images to share, "" if it is
	// this image's own.
	tag          string
	architecture string // that it is for, "" for any
}

// MissingBytecodeError says that the bytecode that was asked for has not been
// compiled yet.
type MissingBytecodeError struct {
	Release *catalog.Release
	Python  string // minor version
}

func (e *MissingBytecodeError) Error() string {
	return fmt.Sprintf("no bytecode of OpenTelemetry %s for Python %s in the cache", e.Release, e.Python)
}

// Hint says how to get it.
func (e *MissingBytecodeError) Hint() string {
	return fmt.Sprintf("imgwrap layer build --bytecode python%s %s", e.Python, e.Release.Version)
}

// prebuiltLayers chooses among them: the bundle always, native code where it is
// known to work, bytecode where it is asked for.
func (p *ImagePlan) prebuiltLayers(src source, choice *instrument.Choice, opts Options, layers prebuilt) error {
	r, i := choice.Release, src.environment.Interpreter
	bundle, err := layers.bundle(r)
	if err != nil {
		return err
	}
	p.added = []added{{kind: "bundle", brings: "OpenTelemetry " + r.String(), layer: bundle, tag: bundleTag(r)}}
	var bytecode *layer.Layer
	if opts.Bytecode {
		bytecode, err = layers.bytecode(r, i.Minor())
		if errors.Is(err, fs.ErrNotExist) {
			return &MissingBytecodeError{r, i.Minor()}
		}
		if err != nil {
			return err
		}
	}
	if opts.Native {
		architecture := src.parsed.Architecture
		total := src.layers() + 3 // with bundle, native and launch
		if bytecode != nil {
			total++
		}
		why := nativeUnfit(src, choice, architecture)
		if why == "" && total > rewrite.MaxLayers {
			why = fmt.Sprintf("the image would have more than %d layers with it", rewrite.MaxLayers)
		}
		if why != "" {
			p.note("no native layer, protobuf's Python code encodes the spans: %s", why)
		} else {
			native, err := layers.native(r, architecture)
			if err != nil {
				return err
			}
			p.added = append(p.added, added{
				kind:   "native",
				brings: fmt.Sprintf("native code of protobuf %s for %s and %s: spans encode faster", version(choice.Added, "protobuf"), i.Libc, architecture),
				layer:  native, tag: nativeTag(r, architecture), architecture: architecture,
			})
		}
	}
	if bytecode != nil {
		p.added = append(p.added, added{
			kind: "bytecode", brings: "bytecode for Python " + i.Minor() + ": the app starts faster",
			layer: bytecode, tag: r.Version + "-bytecode-" + i.Minor(),
		})
	}
	return nil
}

// nativeUnfit says why protobuf's native code is of no use in an image, if so.
// Beside any protobuf but the bundle's own it would even break it.
func nativeUnfit(src source, choice *instrument.Choice, architecture string) string {
	r, i := choice.Release, src.environment.Interpreter
	native, ok := r.Native(architecture)
	libstdcxx := func(name []byte) bool { return string(name) == "libstdc++.so.6" }
	switch {
	case version(choice.Added, "protobuf") == "":
		for _, d := range src.environment.Distributions {
			if pep508.Normalize(d.Name) == "protobuf" {
				return fmt.Sprintf("the app's own protobuf %s is used", d.Version)
			}
		}
		return "nothing needs protobuf"
	case !ok:
		return fmt.Sprintf("there is none for %s with OpenTelemetry %s", architecture, r)
	case i.Libc == "":
		return fmt.Sprintf("the C library of %s is not known", i.Path)
	case i.Libc != native.Libc:
		return fmt.Sprintf("it is built for %s, and %s for %s", native.Libc, i.Path, i.Libc)
	case i.FreeThreaded:
		return "it is not built for free-threaded Python"
	case !native.Serves(i.Libc, i.Version):
		return fmt.Sprintf("protobuf %s is not proven with Python %s", version(choice.Added, "protobuf"), i.Minor())
	case len(src.files.Find(libstdcxx)) == 0:
		return "it needs libstdc++.so.6, which the image does not have"
	}
	return ""
}

// version of a distribution in a list, "" if it isn't there.
func version(list []catalog.Distribution, name string) string {
	i := slices.IndexFunc(list, func(d catalog.Distribution) bool { return d.Name == name })
	if i < 0 {
		return ""
	}
	return list[i].Version
}

// layersRepository is the repository that layers are shared from, a reference
// without transport. The destination has to be able to mount from there.
func layersRepository(c *registry.Client, repository string, destination registry.Reference) (registry.Reference, error) {
	if destination.Transport != registry.InRegistry {
		return registry.Reference{}, &UsageError{
			fmt.Sprintf("--layers %s: layers are shared in a registry, and %s is not in one", repository, destination),
			"leave it out",
		}
	}
	host := destination.Named().Context().RegistryStr()
	named, err := name.NewRepository(repository)
	if err != nil {
		return registry.Reference{}, &UsageError{
			fmt.Sprintf("--layers %q is not a repository", repository),
			fmt.Sprintf("give a repository without tag or digest, such as %s/otel", host),
		}
	}
	if named.RegistryStr() != host {
		return registry.Reference{}, &UsageError{
			fmt.Sprintf("--layers %s is not in the registry of %s: a registry mounts only what it has", repository, destination),
			fmt.Sprintf("give a repository of it, such as %s/%s", host, named.RepositoryStr()),
		}
	}
	return c.ParseReference(repository)
}

// share has the layers that many images have mounted from a repository.
func (p *Plan) share(c *registry.Client, repository registry.Reference) error {
	for _, im := range p.Images() {
		for _, l := range im.added {
			if l.tag == "" {
				continue
			}
			kept, err := c.WithTag(repository, l.tag)
			if err != nil {
				return err
			}
			p.tree.Shared = append(p.tree.Shared, registry.Shared{Layer: l.layer, Kept: kept, Architecture: l.architecture})
		}
	}
	return nil
}
