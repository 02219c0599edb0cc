package registry

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// A Referrer is something that was attached to a document in its registry: a
// signature, an SBOM.
type Referrer struct {
	// Name is the tag or digest that it has in the repository.
	Name string
	// Kind is its artifact type, or what cosign's suffix of the tag stands for.
	Kind string
}

// cosignTags are the suffixes of tags by which cosign attaches things
// (sigstore/cosign, specs/SIGNATURE_SPEC.md).
var cosignTags = []struct{ suffix, kind string }{{".sig", "signature"}, {".att", "attestation"}}

// Referrers lists what is attached to a document of the source, as far as its
// registry tells: by the referrers API of the distribution-spec, or by its
// fallback, the referrers tag, and by cosign's tags. What is not in a registry
// has none.
func (s *Source) Referrers(ctx context.Context, digest v1.Hash) []Referrer {
	r, ok := s.store.(*repository)
	if !ok {
		return nil
	}
	ctx = once(ctx) // it is of no help to wait for these
	tag := digest.Algorithm + "-" + digest.Hex
	lists := make([][]Referrer, 1+len(cosignTags))
	var wg sync.WaitGroup
	wg.Go(func() {
		list, known := r.referrers(ctx, "referrers", digest.String())
		if !known {
			list, _ = r.referrers(ctx, "manifests", tag)
		}
		lists[0] = list
	})
	for i, t := range cosignTags {
		wg.Go(func() {
			if r.has(ctx, tag+t.suffix) {
				lists[1+i] = []Referrer{{tag + t.suffix, t.kind}}
			}
		})
	}
	wg.Wait()
	return slices.Concat(lists...)
}

// referrers reads an index of referrers. It is not known if the registry has
// none to give.
func (r *repository) referrers(ctx context.Context, kind, id string) (list []Referrer, known bool) {
	resp, err := r.ask(ctx, http.MethodGet, kind, id)
	if err != nil {
		return nil, false
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, manifestLimit))
	var index v1.IndexManifest
	if err != nil || json.Unmarshal(raw, &index) != nil || !strings.Contains(resp.Header.Get("Content-Type"), ".index.") {
		return nil, false
	}
	for _, d := range index.Manifests {
		list = append(list, Referrer{d.Digest.String(), d.ArtifactType})
	}
	return list, true
}

func (r *repository) has(ctx context.Context, tag string) bool {
	resp, err := r.ask(ctx, http.MethodHead, "manifests", tag)
	if err == nil {
		resp.Body.Close()
	}
	return err == nil
}

// Moved says whether the tag by which the source was opened stands for something
// else by now. What cannot be found out counts as no.
func (s *Source) Moved(ctx context.Context) bool {
	r, ok := s.store.(*repository)
	if !ok || s.Reference.Tag() == "" {
		return false
	}
	resp, err := r.ask(once(ctx), http.MethodHead, "manifests", s.Reference.Tag())
	if err != nil {
		return false
	}
	resp.Body.Close()
	now := resp.Header.Get("Docker-Content-Digest")
	return now != "" && now != s.Root.Digest.String()
}

func (r *repository) ask(ctx context.Context, method, kind, id string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, endpoint(r.name, kind, id), nil)
	if err != nil {
		return nil, err
	}
	acceptManifests(req)
	resp, err := r.http.Do(req)
	if err != nil {
		return nil, err
	}
	if err := transport.CheckError(resp, http.StatusOK); err != nil {
		resp.Body.Close()
		return nil, err
	}
	return resp, nil
}
