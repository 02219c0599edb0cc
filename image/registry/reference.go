package registry

import (
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// A Transport is a kind of place that holds images, by its name in
// containers-transports(5).
type Transport string

const (
	// InRegistry is [REGISTRY/]REPOSITORY[:TAG][@DIGEST]. With both, the digest is
	// what counts, and the tag is where the image once was.
	InRegistry Transport = ""
	// OCILayout is oci:DIR[:TAG|@DIGEST], a directory as the OCI image-spec
	// describes it (image-layout.md). TAG is the org.opencontainers.image.ref.name
	// of an entry in its index.json.
	OCILayout Transport = "oci"
	// OCIArchive is oci-archive:FILE[:TAG|@DIGEST], the tar of an OCI layout.
	OCIArchive Transport = "oci-archive"
	// DockerArchive is docker-archive:FILE[:NAME[:TAG]], what docker save writes.
	DockerArchive Transport = "docker-archive"
	// DockerDaemon is docker-daemon:NAME[:TAG|@DIGEST] or docker-daemon:ID, an image
	// of the Docker engine that DOCKER_HOST names.
	DockerDaemon Transport = "docker-daemon"
)

// KeepsManifests says whether the transport keeps manifests and compressed layers
// byte for byte. Docker's archives and engine keep configs and uncompressed
// layers, of the image of one platform: an image there is known by the digest of
// its config, and has the manifest that this package makes up for it.
func (t Transport) KeepsManifests() bool { return t != DockerArchive && t != DockerDaemon }

// A Reference names an image, and where it is kept. The zero value names none.
type Reference struct {
	// Transport is the kind of place.
	Transport Transport
	// Path is the directory or file, "" where there is none.
	Path string

	text  string
	named name.Reference // of registries, Docker's archives and engine, nil if there is none
	// Of OCI layouts, at most one of them. An image ID of the engine is a digest too.
	// In a registry, tag is the one beside a digest.
	tag    string
	digest v1.Hash
}

// ParseReference parses a reference. The error is a *UsageError.
//
// It is what skopeo reads, except that docker:// is left out, an image in an OCI
// layout may be named by its digest and not by its number, and a name without a
// tag is latest in Docker's archives and engine, too.
func (c *Client) ParseReference(ref string) (Reference, error) {
	kind, rest, _ := strings.Cut(ref, ":")
	r := Reference{Transport: Transport(kind), text: ref}
	var err error
	switch r.Transport {
	case OCILayout, OCIArchive:
		err = r.parseLayout(rest)
	case DockerArchive:
		err = r.parseArchive(rest)
	case DockerDaemon:
		if r.digest, err = v1.NewHash(rest); err != nil {
			r.named, err = parseName(rest)
		}
	default:
		r.Transport = InRegistry
		r.named, err = name.ParseReference(ref, c.nameOptions()...)
		if err != nil || strings.Contains(ref, "://") || unsupported(ref) { // "docker:" would be a registry
			return Reference{}, &UsageError{Reference: ref}
		}
		r.tag = pinnedTag(ref)
	}
	if err != nil {
		return Reference{}, &UsageError{Reference: ref, problem: err.Error()}
	}
	return r, nil
}

// pinnedTag is the tag of a reference of a registry that has a digest, too.
func pinnedTag(ref string) string {
	tagged, _, pinned := strings.Cut(ref, "@")
	if i := strings.LastIndexAny(tagged, "/:"); pinned && i >= 0 && tagged[i] == ':' {
		return tagged[i+1:]
	}
	return ""
}

// refName is the grammar of a tag in an OCI layout (annotations.md).
var refName = regexp.MustCompile(`^[A-Za-z0-9]+((?:[-._:@+]|--)[A-Za-z0-9]+)*(/[A-Za-z0-9]+((?:[-._:@+]|--)[A-Za-z0-9]+)*)*$`)

func (r *Reference) parseLayout(s string) error {
	if i := strings.LastIndex(s, "@sha"); i >= 0 {
		digest, err := v1.NewHash(s[i+1:])
		if err != nil {
			return err
		}
		r.Path, r.digest = s[:i], digest
		if strings.Contains(r.Path, ":") {
			return errors.New("it has both a tag and a digest")
		}
	} else {
		dir, tag, tagged := strings.Cut(s, ":")
		if tagged && !refName.MatchString(tag) {
			return fmt.Errorf("%q is not a tag", tag)
		}
		r.Path, r.tag = dir, tag
	}
	return r.needPath()
}

func (r *Reference) parseArchive(s string) (err error) {
	file, named, ok := strings.Cut(s, ":")
	r.Path = file
	if ok {
		if r.named, err = parseName(named); err != nil {
			return err
		}
		if _, digest := r.named.(name.Digest); digest {
			return errors.New("images in a Docker archive have no digest")
		}
	}
	return r.needPath()
}

func (r *Reference) needPath() error {
	if r.Path == "" {
		return errors.New("it has no path")
	}
	return nil
}

func parseName(s string) (name.Reference, error) {
	r, err := name.ParseReference(s)
	if err != nil {
		return nil, fmt.Errorf("%q is not a name of an image", s)
	}
	return r, nil
}

// String is the reference as it was given.
func (r Reference) String() string { return r.text }

// Name is the reference with all that it leaves out: Docker Hub's address, the
// tag latest. If it has both a tag and a digest it is the name with the tag.
func (r Reference) Name() string {
	switch {
	case r.named == nil:
		return r.text
	case r.Tag() == "":
		return r.Repository() + "@" + r.Digest()
	}
	return r.Repository() + ":" + r.Tag()
}

// Repository is what the reference has beside tag and digest: names that differ
// in no more than these are in the same repository.
func (r Reference) Repository() string {
	var repository string
	if r.named != nil {
		repository = r.named.Context().Name()
	}
	switch r.Transport {
	case InRegistry:
		return repository
	case DockerDaemon:
		return string(r.Transport) + ":" + familiar(repository)
	case DockerArchive:
		if repository != "" {
			return string(r.Transport) + ":" + r.Path + ":" + familiar(repository)
		}
	}
	return string(r.Transport) + ":" + r.Path
}

// Public is the repository without the directories of this machine: what an
// image that is published may say of where it came from.
func (r Reference) Public() string {
	if r.named != nil {
		return r.named.Context().Name()
	}
	return r.Application()
}

// Tag is the reference's tag, "" if it has none.
func (r Reference) Tag() string {
	if tag, ok := r.named.(name.Tag); ok {
		return tag.TagStr()
	}
	return r.tag
}

// Digest is the reference's digest, "" if it has none.
func (r Reference) Digest() string {
	if digest, ok := r.named.(name.Digest); ok {
		return digest.DigestStr()
	}
	if r.digest != (v1.Hash{}) {
		return r.digest.String()
	}
	return ""
}

// Application is a short name for what the image holds: the last part of its
// repository, or else of the path it is kept at, without extension.
func (r Reference) Application() string {
	if r.named != nil {
		return path.Base(r.named.Context().RepositoryStr())
	}
	if r.Path == "" {
		return "" // an image ID
	}
	base := filepath.Base(r.Path)
	return strings.TrimSuffix(strings.TrimSuffix(base, filepath.Ext(base)), ".tar")
}

// Named is the name in a registry's terms. It is nil where an image has none: in
// OCI layouts, and in Docker's without a name.
func (r Reference) Named() name.Reference { return r.named }

// inRegistry is the repository in a registry, the zero value if it is none.
func (r Reference) inRegistry() name.Repository {
	if r.Transport != InRegistry {
		return name.Repository{}
	}
	return r.named.Context()
}

// WithTag is the reference with another tag, in place of its tag and digest. The
// error is a *UsageError.
func (c *Client) WithTag(r Reference, tag string) (Reference, error) {
	if !r.Transport.KeepsManifests() && r.named == nil {
		return Reference{}, &UsageError{Reference: r.text, problem: "it has no name to add a tag to"}
	}
	return c.ParseReference(r.Repository() + ":" + tag)
}

// familiar is a name as docker shows it: without docker.io/library.
func familiar(named string) string {
	if rest, ok := strings.CutPrefix(named, name.DefaultRegistry+"/"); ok {
		rest, _ = strings.CutPrefix(rest, "library/")
		return rest
	}
	return named
}
