package registry

import (
	"strings"
	"testing"
)

func TestParseReference(t *testing.T) {
	c := New(Options{})
	digest := "sha256:" + strings.Repeat("0", 64)
	for _, tt := range []struct {
		ref                                    string
		transport                              Transport
		path, repository, tag, digest, app, as string // as: Name
	}{
		{ref: "host.test/team/app:1", repository: "host.test/team/app", tag: "1", app: "app", as: "host.test/team/app:1"},
		{ref: "app", repository: "index.docker.io/library/app", tag: "latest", app: "app", as: "index.docker.io/library/app:latest"},
		{ref: "docker:dind", repository: "index.docker.io/library/docker", tag: "dind", app: "docker", as: "index.docker.io/library/docker:dind"},
		{ref: "host.test/oci:1", repository: "host.test/oci", tag: "1", app: "oci", as: "host.test/oci:1"},
		{ref: "127.0.0.1:5000/team/app:1.0", repository: "127.0.0.1:5000/team/app", tag: "1.0", app: "app", as: "127.0.0.1:5000/team/app:1.0"},
		{ref: "app@" + digest, repository: "index.docker.io/library/app", digest: digest, app: "app", as: "index.docker.io/library/app@" + digest},
		{ref: "app:1@" + digest, repository: "index.docker.io/library/app", tag: "1", digest: digest, app: "app", as: "index.docker.io/library/app:1"},
		{ref: "host.test:5000/app@" + digest, repository: "host.test:5000/app", digest: digest, app: "app", as: "host.test:5000/app@" + digest},
		{ref: "host.test:5000/app:1.0-otel@" + digest, repository: "host.test:5000/app", tag: "1.0-otel", digest: digest, app: "app", as: "host.test:5000/app:1.0-otel"},
		{ref: "oci:/a/b.d", transport: OCILayout, path: "/a/b.d", repository: "oci:/a/b.d", app: "b", as: "oci:/a/b.d"},
		{ref: "oci:x:1.0", transport: OCILayout, path: "x", repository: "oci:x", tag: "1.0", app: "x", as: "oci:x:1.0"},
		{ref: "oci:x:host.test/team/app:1", transport: OCILayout, path: "x", repository: "oci:x", tag: "host.test/team/app:1", app: "x", as: "oci:x:host.test/team/app:1"},
		{ref: "oci:x@y@" + digest, transport: OCILayout, path: "x@y", repository: "oci:x@y", digest: digest, app: "x@y", as: "oci:x@y@" + digest},
		{ref: "oci-archive:a.tar.gz:1", transport: OCIArchive, path: "a.tar.gz", repository: "oci-archive:a.tar.gz", tag: "1", app: "a", as: "oci-archive:a.tar.gz:1"},
		{ref: "docker-archive:d/a.tar", transport: DockerArchive, path: "d/a.tar", repository: "docker-archive:d/a.tar", app: "a", as: "docker-archive:d/a.tar"},
		{ref: "docker-archive:a.tar:app", transport: DockerArchive, path: "a.tar", repository: "docker-archive:a.tar:app", tag: "latest", app: "app", as: "docker-archive:a.tar:app:latest"},
		{ref: "docker-archive:a.tar:host.test:5000/app:2", transport: DockerArchive, path: "a.tar", repository: "docker-archive:a.tar:host.test:5000/app", tag: "2", app: "app", as: "docker-archive:a.tar:host.test:5000/app:2"},
		{ref: "docker-daemon:team/app:2", transport: DockerDaemon, repository: "docker-daemon:team/app", tag: "2", app: "app", as: "docker-daemon:team/app:2"},
		{ref: "docker-daemon:app@" + digest, transport: DockerDaemon, repository: "docker-daemon:app", digest: digest, app: "app", as: "docker-daemon:app@" + digest},
		{ref: "docker-daemon:" + digest, transport: DockerDaemon, repository: "docker-daemon:", digest: digest, as: "docker-daemon:" + digest},
	} {
		r, err := c.ParseReference(tt.ref)
		if err != nil {
			t.Errorf("%s: %v", tt.ref, err)
			continue
		}
		for _, check := range []struct{ what, got, want string }{
			{"transport", string(r.Transport), string(tt.transport)},
			{"path", r.Path, tt.path},
			{"repository", r.Repository(), tt.repository},
			{"tag", r.Tag(), tt.tag},
			{"digest", r.Digest(), tt.digest},
			{"application", r.Application(), tt.app},
			{"name", r.Name(), tt.as},
			{"string", r.String(), tt.ref},
		} {
			if check.got != check.want {
				t.Errorf("%s: %s is %q, want %q", tt.ref, check.what, check.got, check.want)
			}
		}
		if strings.Contains(r.Public(), "/a/") || strings.Contains(r.Public(), "d/a") {
			t.Errorf("%s: public is %q", tt.ref, r.Public())
		}
	}
	for _, tt := range []struct{ ref, want, hint string }{
		{"oci:", "it has no path", "oci:DIR[:TAG]"},
		{"oci::1", "it has no path", "oci:DIR[:TAG]"},
		{"oci:x:", `"" is not a tag`, "oci:DIR[:TAG]"},
		{"oci:x:a b", `"a b" is not a tag`, "oci:DIR[:TAG]"},
		{"oci:x@sha256:12", "wrong number of hex digits", "oci:DIR@DIGEST"},
		{"oci:x:1@" + digest, "it has both a tag and a digest", "oci:DIR@DIGEST"},
		{"oci-archive:", "it has no path", "oci-archive:FILE"},
		{"docker-archive:", "it has no path", "docker-archive:FILE"},
		{"docker-archive:x:App", `"App" is not a name of an image`, "docker-archive:FILE"},
		{"docker-archive:x:@0", `"@0" is not a name of an image`, "docker-archive:FILE"},
		{"docker-archive:x:app@" + digest, "images in a Docker archive have no digest", "docker-archive:FILE"},
		{"docker-daemon:", `"" is not a name of an image`, "docker-daemon:NAME"},
		{"docker-daemon:a b", `"a b" is not a name of an image`, "docker-daemon:NAME"},
		{"dir:x", "is kept in a way that is not supported", "skopeo copy dir:x oci:DIR:TAG"},
		{"containers-storage:app:1", "is kept in a way that is not supported", "skopeo copy"},
		{"", "is not an image reference", "a reference is"},
		{"app:", "is not an image reference", "a reference is"},
		{"App", "is not an image reference", "lower-case"},
		{"https://host/app", "is not an image reference", "leave out the https://"},
		{"docker://host/app", "is not an image reference", "leave out the docker://"},
		{"app:@" + digest, "is not an image reference", "a reference is"},
		{"app:a b@" + digest, "is not an image reference", "a reference is"},
		{"app@sha256:0", "is not an image reference", "a reference is"},
		{"app:1 0", "is not an image reference", "a reference is"},
		{"app\n", "is not an image reference", "a reference is"},
		{strings.Repeat("a", 300), "is not an image reference", "a reference is"},
	} {
		r, err := c.ParseReference(tt.ref)
		e, ok := err.(*UsageError)
		if !ok || !strings.Contains(e.Error(), tt.want) || !strings.Contains(e.Hint(), tt.hint) || strings.Contains(e.Error(), "\n") {
			t.Errorf("%q: got %v, %v, want %s", tt.ref, r, err, tt.want)
		}
	}
}

func TestWithTag(t *testing.T) {
	c := New(Options{})
	digest := "@sha256:" + strings.Repeat("0", 64)
	for ref, want := range map[string]string{
		"host.test/app:1":             "host.test/app:new",
		"host.test/app" + digest:      "host.test/app:new",
		"host.test/app:1" + digest:    "host.test/app:new",
		"app":                         "index.docker.io/library/app:new",
		"oci:x":                       "oci:x:new",
		"oci:x:1":                     "oci:x:new",
		"oci-archive:x" + digest:      "oci-archive:x:new",
		"docker-archive:x:team/app":   "docker-archive:x:team/app:new",
		"docker-daemon:app:1":         "docker-daemon:app:new",
		"docker-archive:x":            "",
		"docker-daemon:" + digest[1:]: "",
	} {
		r, err := c.ParseReference(ref)
		if err != nil {
			t.Fatal(err)
		}
		got, err := c.WithTag(r, "new")
		if (err != nil) != (want == "") || err == nil && got.Name() != want {
			t.Errorf("%s: %v, %v, want %s", ref, got.Name(), err, want)
		}
	}
}
