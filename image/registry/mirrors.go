package registry

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/BurntSushi/toml"
	"github.com/google/go-containerregistry/pkg/name"
)

// A mirrored registry is one of which registries.conf has something to say
// (containers-registries.conf(5)). The rest of that file, such as short names and
// blocked registries, is not heeded.
type mirrored struct {
	Prefix   string // "docker.io/library", "*.example.com"
	Location string
	Insecure bool
	Mirror   []struct {
		Location       string
		Insecure       bool
		PullFromMirror string `toml:"pull-from-mirror"`
	}
	ByDigestOnly bool `toml:"mirror-by-digest-only"`
}

// readMirrors reads the registries.conf that skopeo and podman read: the one that
// CONTAINERS_REGISTRIES_CONF names, or the user's, or the system's, and if it is
// one of these the files in registries.conf.d.
func readMirrors() ([]mirrored, error) {
	if file := os.Getenv("CONTAINERS_REGISTRIES_CONF"); file != "" {
		return readMirrorsFile(file)
	}
	dirs := []string{"/etc/containers"}
	if home, err := os.UserHomeDir(); err == nil {
		dirs = append(dirs, filepath.Join(cmp.Or(os.Getenv("XDG_CONFIG_HOME"), filepath.Join(home, ".config")), "containers"))
	}
	var main, more []mirrored
	for _, dir := range dirs {
		found, err := readMirrorsFile(filepath.Join(dir, "registries.conf"))
		switch {
		case err == nil:
			main = found // the user's replaces the system's
		case !errors.Is(err, fs.ErrNotExist):
			return nil, err
		}
		files, err := filepath.Glob(filepath.Join(dir, "registries.conf.d", "*.conf"))
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			found, err := readMirrorsFile(file)
			if err != nil {
				return nil, err
			}
			more = append(more, found...)
		}
	}
	return append(main, more...), nil
}

func readMirrorsFile(file string) ([]mirrored, error) {
	var conf struct{ Registry []mirrored }
	content, err := os.ReadFile(file)
	if err == nil {
		err = toml.Unmarshal(content, &conf)
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", file, err)
	}
	return conf.Registry, nil
}

// places are where to look for an image, in this order: mirrors, and then the
// registry itself or what takes its place.
func (c *Client) places(ref name.Reference) ([]name.Reference, error) {
	registries, err := c.mirrors()
	if err != nil {
		return nil, err
	}
	repo := strings.Replace(ref.Context().Name(), name.DefaultRegistry, "docker.io", 1)
	var best *mirrored
	rest := ""
	for i, m := range registries {
		prefix := cmp.Or(m.Prefix, m.Location)
		after, ok := matchPrefix(repo, prefix)
		if ok && (best == nil || len(prefix) >= len(cmp.Or(best.Prefix, best.Location))) { // a later file replaces
			best, rest = &registries[i], after
		}
	}
	if best == nil {
		return []name.Reference{ref}, nil
	}
	_, digest := ref.(name.Digest)
	var places []name.Reference
	add := func(location string, insecure bool) error {
		var options []name.Option
		if insecure || c.insecure {
			options = append(options, name.Insecure)
		}
		separator := ":"
		if digest {
			separator = "@"
		}
		place, err := name.ParseReference(location+rest+separator+ref.Identifier(), options...)
		if err != nil {
			return fmt.Errorf("registries.conf has the location %q: %w", location, err)
		}
		places = append(places, place)
		return nil
	}
	for _, m := range best.Mirror {
		if from := m.PullFromMirror; (from == "digest-only" || best.ByDigestOnly) && !digest || from == "tag-only" && digest {
			continue
		}
		if err := add(m.Location, m.Insecure); err != nil {
			return nil, err
		}
	}
	if best.Location == "" || strings.HasPrefix(best.Prefix, "*.") {
		return append(places, ref), nil
	}
	return places, add(best.Location, best.Insecure)
}

// matchPrefix says whether a repository is below a prefix, and what comes after.
func matchPrefix(repo, prefix string) (rest string, ok bool) {
	if domain, wild := strings.CutPrefix(prefix, "*"); wild {
		host, path, _ := strings.Cut(repo, "/")
		return "/" + path, strings.HasSuffix(host, domain)
	}
	rest, ok = strings.CutPrefix(repo, prefix)
	return rest, ok && prefix != "" && (rest == "" || rest[0] == '/')
}
