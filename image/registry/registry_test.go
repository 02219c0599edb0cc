package registry

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/imgwrap/imgwrap/image/registry/registrytest"
)

// A server is a registry that counts requests.
type server struct {
	*httptest.Server
	inner *registrytest.Registry

	mu       sync.Mutex
	requests map[string]int  // by kind, see registrytest.Kind
	waits    []time.Duration // that clients waited

	// fault, if set, may answer a request in the registry's place.
	fault func(w http.ResponseWriter, r *http.Request, kind string) (answered bool)
}

func newServer(t *testing.T) *server {
	s := &server{
		inner:    registrytest.New(registry.New(registry.Logger(log.New(io.Discard, "", 0)))),
		requests: make(map[string]int),
	}
	s.Server = httptest.NewServer(s)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	t.Cleanup(s.Close)
	return s
}

// client returns a client for tests: it notes how long it was to wait, and does
// not.
func (s *server) client(o Options) *Client {
	if o.Keychain == nil {
		o.Keychain = authn.NewMultiKeychain() // anonymous
	}
	c := New(o)
	c.wait = func(ctx context.Context, d time.Duration, _ error) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.waits = append(s.waits, d)
		return ctx.Err()
	}
	return c
}

func (s *server) host() string { return strings.TrimPrefix(s.URL, "http://") }

func (s *server) ref(t *testing.T, ref string) name.Reference {
	r, err := name.ParseReference(s.host() + "/" + ref)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// forget forgets the requests there were and returns them.
func (s *server) forget() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	requests := s.requests
	s.requests = make(map[string]int)
	s.waits = nil
	return requests
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	kind := registrytest.Kind(r)
	s.mu.Lock()
	s.requests[kind]++
	fault := s.fault
	s.mu.Unlock()
	if fault == nil || !fault(w, r, kind) {
		s.inner.ServeHTTP(w, r)
	}
}

// cut breaks a connection off after some bytes of an answer, or none.
func cut(w http.ResponseWriter, answer string) {
	conn, buf, err := w.(http.Hijacker).Hijack()
	if err != nil {
		panic(err)
	}
	buf.WriteString(answer)
	buf.Flush()
	conn.Close()
}

// tagged says whether the registry has that tag.
func (s *server) tagged(ref string) bool { return s.inner.Tag(ref) != "" }

// putImage stores an image of six layers.
func (s *server) putImage(t *testing.T, ref string) v1.Image {
	t.Helper()
	img, err := random.Image(3000, 6)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(s.ref(t, ref), img); err != nil {
		t.Fatal(err)
	}
	s.forget()
	return img
}

// open opens an image that is to be found.
func (s *server) open(t *testing.T, c *Client, ref string) *Image {
	t.Helper()
	im, err := open(t.Context(), c, s.host()+"/"+ref)
	if err != nil {
		t.Fatal(err)
	}
	return im
}

// open opens the image of one platform.
func open(ctx context.Context, c *Client, ref string) (*Image, error) {
	s, err := c.Find(ctx, ref)
	if err != nil {
		return nil, err
	}
	return s.Image(ctx, s.Root)
}

// madeImage is an image made from another one.
type madeImage struct {
	MediaType        types.MediaType
	Manifest, Config []byte
	Added            []v1.Layer
}

// push writes an image, made from src, to a registry.
func push(ctx context.Context, c *Client, dst name.Reference, src *Image, made madeImage) (Report, error) {
	return c.Write(ctx, Reference{text: dst.String(), named: dst}, src.source, Tree{
		Root:    NewDocument(made.MediaType, made.Manifest),
		Configs: [][]byte{made.Config},
		Layers:  made.Added,
	})
}

// wrapped is the image with a layer on top.
func wrapped(t *testing.T, img v1.Image) madeImage {
	t.Helper()
	layer := static.NewLayer(bytes.Repeat([]byte("launch"), 20_000), types.DockerLayer)
	img, err := mutate.AppendLayers(img, layer)
	if err != nil {
		t.Fatal(err)
	}
	c := madeImage{Added: []v1.Layer{layer}}
	if c.MediaType, err = img.MediaType(); err != nil {
		t.Fatal(err)
	}
	if c.Manifest, err = img.RawManifest(); err != nil {
		t.Fatal(err)
	}
	if c.Config, err = img.RawConfigFile(); err != nil {
		t.Fatal(err)
	}
	return c
}

func wantRequests(t *testing.T, s *server, want map[string]int) {
	t.Helper()
	if got := s.forget(); !maps.Equal(got, want) {
		t.Errorf("requests: %v, want %v", got, want)
	}
}

func TestOpen(t *testing.T) {
	s := newServer(t)
	img := s.putImage(t, "team/app:1")
	digest, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	config, err := img.RawConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	c := s.client(Options{UserAgent: "imgwrap/1"})
	im := s.open(t, c, "team/app:1")
	wantRequests(t, s, map[string]int{"GET ping": 1, "GET manifests": 1, "GET blobs": 1})
	if im.Digest != digest || im.MediaType != types.DockerManifestSchema2 || !bytes.Equal(im.RawConfig, config) ||
		len(im.Manifest.Layers) != 6 || len(im.Config.RootFS.DiffIDs) != 6 || im.Name != s.host()+"/team/app:1" {
		t.Errorf("got %+v", im)
	}
	im = s.open(t, c, "team/app@"+digest.String())
	wantRequests(t, s, map[string]int{"GET manifests": 1, "GET blobs": 1})
	if im.Digest != digest {
		t.Errorf("digest %s, want %s", im.Digest, digest)
	}
}

func TestLayer(t *testing.T) {
	s := newServer(t)
	img := s.putImage(t, "app:1")
	im := s.open(t, s.client(Options{Jobs: 1}), "app:1")
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	want := make([][]byte, len(layers))
	for i, l := range layers {
		rc, err := l.Compressed()
		if err != nil {
			t.Fatal(err)
		}
		if want[i], err = io.ReadAll(rc); err != nil {
			t.Fatal(err)
		}
	}

	t.Run("all open at once", func(t *testing.T) {
		var open []io.ReadCloser
		for i := range layers {
			rc, err := im.Layer(t.Context(), i)
			if err != nil {
				t.Fatal(err)
			}
			defer rc.Close()
			open = append(open, rc)
		}
		for i, rc := range open {
			if got, err := io.ReadAll(rc); err != nil || !bytes.Equal(got, want[i]) {
				t.Errorf("layer %d: %d bytes, %v", i, len(got), err)
			}
		}
	})

	blob := want[2]
	digest := im.Manifest.Layers[2].Digest.String()
	half := len(blob) / 2
	header := func(status string, length int, more string) string {
		return fmt.Sprintf("HTTP/1.1 %s\r\nContent-Length: %d\r\n%s\r\n", status, length, more)
	}
	for _, tt := range []struct {
		name  string
		fault func(w http.ResponseWriter, r *http.Request, n int) bool // of the n-th request
		want  string                                                   // error, less its prefix
		n     int                                                      // requests
	}{{
		name: "cut, then resumed",
		fault: func(w http.ResponseWriter, r *http.Request, n int) bool {
			switch r.Header.Get("Range") {
			case "":
				cut(w, header("200 OK", len(blob), "")+string(blob[:half]))
			case fmt.Sprintf("bytes=%d-%d", half, len(blob)-1):
				cut(w, header("206 Partial Content", len(blob)-half, fmt.Sprintf("Content-Range: bytes %d-%d/%d\r\n", half, len(blob)-1, len(blob)))+string(blob[half:len(blob)-10]))
			default: // an old registry: all of it
				r.Header.Del("Range")
				return false
			}
			return true
		},
		n: 3,
	}, {
		name: "cut, and no ranges",
		fault: func(w http.ResponseWriter, r *http.Request, n int) bool {
			switch {
			case n == 1:
				cut(w, header("200 OK", len(blob), "")+string(blob[:half]))
			case r.Header.Get("Range") != "":
				registrytest.Deny(w, 416, "BLOB_UNKNOWN")
			default:
				return false
			}
			return true
		},
		n: 3,
	}, {
		name: "always cut",
		fault: func(w http.ResponseWriter, _ *http.Request, n int) bool {
			cut(w, header("200 OK", len(blob), "")+string(blob[:half]))
			return true
		},
		want: fmt.Sprintf("registry sent only %d of %d bytes", half, len(blob)),
		n:    5,
	}, {
		name: "truncated",
		fault: func(w http.ResponseWriter, _ *http.Request, n int) bool {
			w.Write(blob[:half])
			return true
		},
		want: fmt.Sprintf("registry has %d bytes instead of %d", half, len(blob)),
		n:    1,
	}, {
		name: "truncated, of unknown length",
		fault: func(w http.ResponseWriter, _ *http.Request, n int) bool {
			w.(http.Flusher).Flush()
			w.Write(blob[:half])
			return true
		},
		want: fmt.Sprintf("registry sent only %d of %d bytes", half, len(blob)),
		n:    5,
	}, {
		name: "longer",
		fault: func(w http.ResponseWriter, _ *http.Request, n int) bool {
			w.(http.Flusher).Flush()
			w.Write(append(blob[:len(blob):len(blob)], "more"...))
			return true
		},
		want: fmt.Sprintf("registry sent more than the %d bytes it should have", len(blob)),
		n:    1,
	}, {
		name: "altered",
		fault: func(w http.ResponseWriter, _ *http.Request, n int) bool {
			w.Write(make([]byte, len(blob)))
			return true
		},
		want: "content has digest sha256:",
		n:    1,
	}, {
		name: "gone",
		fault: func(w http.ResponseWriter, _ *http.Request, n int) bool {
			registrytest.Deny(w, 404, "BLOB_UNKNOWN")
			return true
		},
		want: s.host() + " lacks a part of the image (404 BLOB_UNKNOWN)",
		n:    1,
	}, {
		name: "cut, then gone",
		fault: func(w http.ResponseWriter, _ *http.Request, n int) bool {
			if n > 1 {
				w.WriteHeader(404)
			} else {
				cut(w, header("200 OK", len(blob), "")+string(blob[:half]))
			}
			return true
		},
		want: s.host() + " lacks a part of the image (404 Not Found)",
		n:    2,
	}, {
		name: "another range",
		fault: func(w http.ResponseWriter, _ *http.Request, n int) bool {
			if n > 1 {
				w.Header().Set("Content-Range", "bytes 0-5/6")
				w.WriteHeader(206)
			} else {
				cut(w, header("200 OK", len(blob), "")+string(blob[:half]))
			}
			return true
		},
		want: fmt.Sprintf(`registry sent "bytes 0-5/6" instead of "bytes %d-"`, half),
		n:    2,
	}} {
		t.Run(tt.name, func(t *testing.T) {
			n := 0
			s.fault = func(w http.ResponseWriter, r *http.Request, kind string) bool {
				n++
				return tt.fault(w, r, n)
			}
			defer func() { s.fault = nil }()
			var got []byte
			rc, err := im.Layer(t.Context(), 2)
			if err == nil {
				got, err = io.ReadAll(rc)
				if err := rc.Close(); err != nil {
					t.Errorf("closing: %v", err)
				}
			}
			if tt.want == "" {
				if err != nil || !bytes.Equal(got, blob) {
					t.Errorf("%d bytes, %v", len(got), err)
				}
			} else if prefix := "reading layer " + digest + " of " + im.Name + ": "; err == nil || !strings.HasPrefix(err.Error(), prefix+tt.want) {
				t.Errorf("got  %v\nwant %s%s", err, prefix, tt.want)
			}
			if n != tt.n {
				t.Errorf("%d requests, want %d", n, tt.n)
			}
		})
	}

	t.Run("cut often, but not soon", func(t *testing.T) {
		want := bytes.Repeat([]byte("0123456789abcdef"), 10*progress/16)
		digest, size, _ := v1.SHA256(bytes.NewReader(want))
		broken := 0
		client := &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			broken++
			from := 0
			rec := httptest.NewRecorder()
			if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from); err == nil {
				rec.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, size-1, size))
				rec.WriteHeader(206)
			}
			resp := rec.Result()
			resp.ContentLength = size - int64(from)
			resp.Body = io.NopCloser(io.MultiReader(bytes.NewReader(want[from:from+progress]), iotest.ErrReader(io.ErrUnexpectedEOF)))
			return resp, nil
		})}
		wait := func(ctx context.Context, _ time.Duration, _ error) error { return ctx.Err() }
		rc, err := newBlobReader(t.Context(), client, wait, s.ref(t, "app:1").Context(), v1.Descriptor{Digest: digest, Size: size})
		if err != nil {
			t.Fatal(err)
		}
		defer rc.Close()
		if got, err := io.ReadAll(rc); err != nil || !bytes.Equal(got, want) || broken != 10 {
			t.Errorf("%d bytes in %d pieces, %v", len(got), broken, err)
		}
	})

	t.Run("canceled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		s.fault = func(w http.ResponseWriter, _ *http.Request, _ string) bool {
			w.(http.Flusher).Flush()
			w.Write(blob[:half])
			w.(http.Flusher).Flush()
			cancel()
			return true
		}
		defer func() { s.fault = nil }()
		rc, err := im.Layer(ctx, 2)
		if err == nil {
			_, err = io.ReadAll(rc)
			rc.Close()
		}
		if err == nil || !strings.HasSuffix(err.Error(), im.Name+": interrupted") {
			t.Errorf("got %v", err)
		}
	})

	t.Run("closed", func(t *testing.T) {
		rc, err := im.Layer(t.Context(), 2)
		if err != nil {
			t.Fatal(err)
		}
		rc.Close()
		if n, err := rc.Read(make([]byte, 10)); n != 0 || err == nil {
			t.Errorf("read %d, %v", n, err)
		}
		if err := rc.Close(); err != nil {
			t.Errorf("closing again: %v", err)
		}
	})
}
