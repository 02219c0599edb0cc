package frontend

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"

	"github.com/imgwrap/imgwrap/image"
	"github.com/imgwrap/imgwrap/layer/bundle"
)

// resolve finds the image that a shared layer is kept as, and pins its digest.
func (b *build) resolve(ctx context.Context, l image.BuiltLayer, p exptypes.Platform) (reference.Canonical, error) {
	tagged, err := reference.WithTag(b.options.layers, l.Tag)
	if err != nil {
		return nil, fmt.Errorf("naming the layer %s: %w", l.Tag, err)
	}
	release, _, _ := strings.Cut(l.Tag, "-")
	push := fmt.Sprintf("push it with `imgwrap layer push %s %s`", b.options.layers, release)
	_, digest, config, err := b.client.ResolveImageConfig(ctx, tagged.String(), sourceresolver.Opt{
		LogName: "[imgwrap] load metadata for " + tagged.String(),
		ImageOpt: &sourceresolver.ResolveImageOpt{
			ResolveMode: b.opts[keyResolve],
			Platform:    &p.Platform,
		},
	})
	if err != nil {
		// Not wrapped: the client is told the innermost error of the builder's own.
		return nil, explain(&optionError{fmt.Sprintf("reading the layer %s: %v", tagged, err), "if it is not there, " + push})
	}
	var found struct {
		RootFS struct {
			DiffIDs []string `json:"diff_ids"`
		} `json:"rootfs"`
	}
	if err := json.Unmarshal(config, &found); err != nil {
		return nil, fmt.Errorf("imgwrap: reading the config of %s: %w", tagged, err)
	}
	if !slices.Equal(found.RootFS.DiffIDs, []string{l.DiffID}) {
		return nil, explain(&optionError{fmt.Sprintf("%s is not the layer with %s", tagged, l.Brings), push})
	}
	pinned, err := reference.WithDigest(tagged, digest)
	if err != nil {
		return nil, fmt.Errorf("imgwrap: the builder did not tell the digest of %s: %w", tagged, err)
	}
	return pinned, nil
}

// stack is what goes on top of what was built.
type stack struct {
	platform llb.ConstraintsOpt
	prefix   string      // of what the progress calls the steps
	shared   []llb.State // each has the files of one layer
	launch   []byte      // the launch layer, a tar archive
}

// archiveName is that of the launch layer while it is a file.
const archiveName = "/launch.tar"

// onto puts the layers on top. Where the builder can merge, those that are shared
// keep their blobs, and that of the launch layer has its diff ID; else all become
// one layer.
func (s stack) onto(app llb.State, merge bool) (llb.State, error) {
	file := func(archive []byte) llb.State {
		return llb.Scratch().File(llb.Mkfile(archiveName, 0o644, archive), s.platform, llb.WithCustomName(s.prefix+"launcher, loader and plan"))
	}
	unpack := &llb.CopyInfo{AttemptUnpack: true}
	if merge {
		// What hides files of the other layers is a file that its name makes a
		// whiteout once it is exported.
		launch := llb.Scratch().File(llb.Copy(file(s.launch), archiveName, "/", unpack), s.platform, llb.WithCustomName(s.prefix+"unpack launcher, loader and plan"))
		states := append(append([]llb.State{app}, s.shared...), launch)
		return llb.Merge(states, llb.WithCustomName(s.prefix+"add OpenTelemetry")), nil
	}
	archive, hidden, err := splitWhiteouts(s.launch)
	if err != nil {
		return llb.State{}, fmt.Errorf("reading the launch layer: %w", err)
	}
	var action *llb.FileAction
	for _, shared := range s.shared {
		action = action.Copy(shared, bundle.Root, bundle.Root, &llb.CopyInfo{CopyDirContentsOnly: true, CreateDestPath: true})
	}
	for _, name := range hidden {
		action = action.Rm("/"+name, llb.WithAllowNotFound(true))
	}
	action = action.Copy(file(archive), archiveName, "/", unpack)
	return app.File(action, s.platform, llb.WithCustomName(s.prefix+"add OpenTelemetry")), nil
}

// splitWhiteouts takes the whiteouts out of a layer and returns what they hide.
func splitWhiteouts(layer []byte) (archive []byte, hidden []string, err error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for r := tar.NewReader(bytes.NewReader(layer)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return buf.Bytes(), hidden, w.Close()
		}
		if err != nil {
			return nil, nil, err
		}
		if name, ok := strings.CutPrefix(path.Base(h.Name), ".wh."); ok {
			hidden = append(hidden, path.Join(path.Dir(h.Name), name))
			continue
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, nil, err
		}
		if _, err := io.Copy(w, r); err != nil {
			return nil, nil, err
		}
	}
}

// applicationName is what a build calls the app, "" if nothing does: the image's
// title, or the repository that its source is in.
func applicationName(opts map[string]string, config []byte) string {
	if parsed, err := v1.ParseConfigFile(bytes.NewReader(config)); err == nil {
		// OCI image-spec, annotations.md, "Pre-Defined Annotation Keys".
		if title := parsed.Config.Labels["org.opencontainers.image.title"]; title != "" {
			return title
		}
	}
	for _, source := range []string{opts[keyVCSSource], opts[keyContext]} {
		source, _, _ = strings.Cut(source, "#")
		source, _, _ = strings.Cut(source, "?")
		if !strings.ContainsAny(source, ":/") {
			continue // the name of a local directory's session
		}
		if name := strings.TrimSuffix(path.Base(strings.TrimRight(source, "/")), ".git"); name != "." && name != "/" {
			return name
		}
	}
	return ""
}
