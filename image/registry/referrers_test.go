package registry

import (
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	ggcr "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

func TestReferrers(t *testing.T) {
	for _, api := range []bool{true, false} {
		s := httptest.NewServer(ggcr.New(ggcr.WithReferrersSupport(api)))
		defer s.Close()
		repo, err := name.NewRepository(strings.TrimPrefix(s.URL, "http://") + "/app")
		if err != nil {
			t.Fatal(err)
		}
		push := func(ref name.Reference, im v1.Image) *v1.Descriptor {
			t.Helper()
			if err := remote.Write(ref, im); err != nil {
				t.Fatal(err)
			}
			d, err := remote.Head(ref)
			if err != nil {
				t.Fatal(err)
			}
			return d
		}
		subject := push(repo.Tag("1"), mutate.MediaType(empty.Image, types.OCIManifestSchema1))
		src, err := New(Options{}).Find(t.Context(), repo.Tag("1").String())
		if err != nil {
			t.Fatal(err)
		}
		defer src.Close()
		if got := src.Referrers(t.Context(), subject.Digest); len(got) != 0 {
			t.Errorf("API %v: %v are attached to nothing", api, got)
		}

		sbom := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
		sbom = mutate.ConfigMediaType(sbom, "application/spdx+json")
		attached := push(repo.Tag("sbom"), mutate.Subject(sbom, *subject).(v1.Image))
		signature := subject.Digest.Algorithm + "-" + subject.Digest.Hex + ".sig"
		push(repo.Tag(signature), empty.Image)
		want := []Referrer{{attached.Digest.String(), "application/spdx+json"}, {signature, "signature"}}
		if got := src.Referrers(t.Context(), subject.Digest); !slices.Equal(got, want) {
			t.Errorf("API %v: got %v, want %v", api, got, want)
		}
	}
}

func TestMoved(t *testing.T) {
	s := httptest.NewServer(ggcr.New())
	defer s.Close()
	tag, err := name.NewTag(strings.TrimPrefix(s.URL, "http://") + "/app:1")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(tag, empty.Image); err != nil {
		t.Fatal(err)
	}
	src, err := New(Options{}).Find(t.Context(), tag.String())
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	if src.Moved(t.Context()) {
		t.Error("moved, says the source, but nobody did")
	}
	if err := remote.Write(tag, mutate.MediaType(empty.Image, types.OCIManifestSchema1)); err != nil {
		t.Fatal(err)
	}
	if !src.Moved(t.Context()) {
		t.Error("the source does not see that it was moved")
	}
}
