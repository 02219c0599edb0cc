package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sync/errgroup"
)

// A Shared layer is one that many images have. It is kept in a repository from
// which theirs mount it: uploaded there once, by whoever needs it first, as an
// image of its own, so that the registry's garbage collection leaves it alone.
type Shared struct {
	Layer v1.Layer
	// Kept is where: repository and tag, in the destination's registry.
	Kept Reference
	// Architecture is what the layer is for, as in OCI platforms, "" for any.
	Architecture string
}

// Tree is the image that keeps the layer: the same bytes wherever it is made.
func (s Shared) Tree() (Tree, error) {
	digest, err := s.Layer.Digest()
	if err != nil {
		return Tree{}, err
	}
	diffID, err := s.Layer.DiffID()
	if err != nil {
		return Tree{}, err
	}
	size, err := s.Layer.Size()
	if err != nil {
		return Tree{}, err
	}
	architecture := s.Architecture
	if architecture == "" {
		architecture = "unknown" // the OCI image-spec requires one
	}
	config, err := json.Marshal(struct {
		Architecture string    `json:"architecture"`
		OS           string    `json:"os"`
		Config       struct{}  `json:"config"`
		RootFS       v1.RootFS `json:"rootfs"`
	}{architecture, "linux", struct{}{}, v1.RootFS{Type: "layers", DiffIDs: []v1.Hash{diffID}}})
	if err != nil {
		return Tree{}, err
	}
	manifest, err := json.Marshal(v1.Manifest{
		SchemaVersion: 2,
		MediaType:     types.OCIManifestSchema1,
		Config:        NewDocument(types.OCIConfigJSON, config).Descriptor(),
		Layers:        []v1.Descriptor{{MediaType: types.OCILayer, Digest: digest, Size: size}},
	})
	if err != nil {
		return Tree{}, err
	}
	return Tree{
		Root:    NewDocument(types.OCIManifestSchema1, manifest),
		Configs: [][]byte{config},
		Layers:  []v1.Layer{s.Layer},
	}, nil
}

// sharable says whether a blob is to be mounted from where it is shared.
func (p *pusher) sharable(b *blob) bool {
	return b.shared != nil && p.mountable(b.shared.Kept.inRegistry())
}

// share sees to it that what the destination lacks is where it is shared from, and
// counts what it sent there.
func (p *pusher) share(ctx context.Context, blobs []*blob) (sent Count, err error) {
	g, gctx := errgroup.WithContext(ctx)
	var mu sync.Mutex
	for _, b := range blobs {
		if b.exists || !p.sharable(b) {
			continue
		}
		g.Go(func() error {
			t, err := b.shared.Tree()
			if err != nil {
				return fmt.Errorf("reading an added layer: %w", err)
			}
			kept := b.shared.Kept
			// Who waits finds it done.
			lock, err := p.registry.locks.get(kept.Name(), func() (*sync.Mutex, error) { return new(sync.Mutex), nil })
			if err != nil {
				return err
			}
			lock.Lock()
			defer lock.Unlock()
			report, err := p.registry.push(about(gctx, "pushing "+kept.String()), kept.named, nil, t)
			if _, ok := errors.AsType[*contentError](err); ok || gctx.Err() != nil {
				return err
			}
			// What the registry has against it is no error: it only saves an upload.
			b.kept = err == nil
			mu.Lock()
			defer mu.Unlock()
			sent.Blobs += report.Uploaded.Blobs
			sent.Bytes += report.Uploaded.Bytes
			return nil
		})
	}
	return sent, g.Wait()
}

// A place is a repository that blobs can be mounted from.
type place struct {
	repo   name.Repository
	client *http.Client
}
