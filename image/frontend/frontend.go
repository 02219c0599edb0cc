// Package frontend builds a Dockerfile and adds OpenTelemetry to the result, as a
// BuildKit frontend: `# syntax=REPOSITORY/imgwrap` in the Dockerfile, or
// --build-arg BUILDKIT_SYNTAX=REPOSITORY/imgwrap.
//
// It leaves building to the Dockerfile frontend that is built into the builder,
// or to the one that the user names. Then it looks into what was built, decides
// as [image.Wrapper] does about an image in a registry, and puts layers on top:
// those that many images share by their own digests, from the repository where
// `imgwrap layer push` has put them.
package frontend

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"github.com/moby/buildkit/frontend/gateway/client"
	gatewaypb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/pb"
	"golang.org/x/sync/errgroup"

	"github.com/imgwrap/imgwrap/image"
	"github.com/imgwrap/imgwrap/image/scan"
	"github.com/imgwrap/imgwrap/layer/catalog"
)

// Keys of a frontend's options (BuildKit, frontend/gateway and dockerui).
const (
	keySource    = "source"    // the frontend's own image
	keyCmdline   = "cmdline"   // the syntax directive; without it the Dockerfile frontend follows that, back to us
	keyRequestID = "requestid" // asks for something else than a build
	keyContext   = "context"
	keyVCSSource = "vcs:source"
	keyResolve   = "image-resolve-mode"
)

// Frontend builds Dockerfiles and instruments what they make.
type Frontend struct {
	Catalog *catalog.Catalog
	Version string // imgwrap's own, for the label
	// Layers is the repository of layers to take where the build names none; ""
	// for none.
	Layers string
}

// Build is a [client.BuildFunc].
func (f *Frontend) Build(ctx context.Context, c client.Client) (*client.Result, error) {
	opts := c.BuildOpts().Opts
	if opts[keyRequestID] != "" {
		return delegate(ctx, c, opts, false)
	}
	o, err := f.options(opts)
	if err != nil {
		return nil, explain(err)
	}
	res, err := delegate(ctx, c, opts, !o.disable)
	if err != nil || o.disable {
		return res, err
	}
	b := &build{client: c, opts: opts, options: o, result: res}
	return res, b.instrument(ctx, f.Catalog)
}

// delegate has the Dockerfile built. To evaluate makes what fails an error of the
// build, with its place in the Dockerfile, instead of one of looking into it.
func delegate(ctx context.Context, c client.Client, opts map[string]string, evaluate bool) (*client.Result, error) {
	req := client.SolveRequest{Frontend: "dockerfile.v0", FrontendOpt: maps.Clone(opts), Evaluate: evaluate}
	if req.FrontendOpt[keyCmdline] == "" {
		req.FrontendOpt[keyCmdline] = "imgwrap"
	}
	delete(req.FrontendOpt, keySource)
	if syntax := opts[argPrefix+"SYNTAX"]; syntax != "" {
		req.Frontend = "gateway.v0"
		req.FrontendOpt[keySource], req.FrontendOpt[keyCmdline] = firstWord(syntax), syntax
		delete(req.FrontendOpt, argPrefix+"SYNTAX") // whoever that is may be imgwrap as well
	}
	caps := c.BuildOpts().Caps
	if caps.Supports(gatewaypb.CapFrontendInputs) == nil {
		inputs, err := c.Inputs(ctx)
		if err != nil {
			return nil, fmt.Errorf("getting the build's inputs: %w", err)
		}
		for name, state := range inputs {
			def, err := state.Marshal(ctx)
			if err != nil {
				return nil, fmt.Errorf("passing on the input %s: %w", name, err)
			}
			if req.FrontendInputs == nil {
				req.FrontendInputs = map[string]*pb.Definition{}
			}
			req.FrontendInputs[name] = def.ToPB()
		}
	}
	return c.Solve(ctx, req)
}

// build is one build whose result is instrumented.
type build struct {
	client  client.Client
	opts    map[string]string
	options options
	result  *client.Result
}

// instrument changes the result of a build.
func (b *build) instrument(ctx context.Context, c *catalog.Catalog) error {
	platforms, err := exptypes.ParsePlatforms(b.result.Metadata)
	if err != nil {
		return fmt.Errorf("reading the platforms of the build: %w", err)
	}
	built, err := b.look(ctx, platforms.Platforms)
	if err != nil {
		return err
	}
	plans, warnings, err := image.PlanBuilt(ctx, built, b.options.image, c)
	if err != nil {
		return b.blame(ctx, err)
	}
	b.warn(ctx, platforms.Platforms, plans, warnings)
	g, gctx := errgroup.WithContext(ctx)
	refs := make([]client.Reference, len(plans))
	for i, p := range plans {
		if p.ImagePlan == nil {
			continue
		}
		g.Go(func() (err error) {
			refs[i], err = b.add(gctx, platforms.Platforms[i], p)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for i, p := range plans {
		if p.ImagePlan == nil {
			continue
		}
		platform := platforms.Platforms[i]
		if b.result.Refs != nil {
			b.result.AddRef(platform.ID, refs[i])
		} else {
			b.result.SetRef(refs[i])
		}
		b.result.AddMeta(b.configKey(platform), p.Config)
	}
	return b.attest(ctx, platforms.Platforms, plans)
}

// configKey is where the result has the config of a platform.
func (b *build) configKey(p exptypes.Platform) string {
	key := exptypes.ExporterImageConfigKey
	if _, ok := b.result.Metadata[key+"/"+p.ID]; ok {
		return key + "/" + p.ID
	}
	return key
}

// look looks into what was built.
func (b *build) look(ctx context.Context, platforms []exptypes.Platform) ([]image.Built, error) {
	built := make([]image.Built, len(platforms))
	g, gctx := errgroup.WithContext(ctx)
	for i, p := range platforms {
		g.Go(func() error {
			config := b.result.Metadata[b.configKey(p)]
			if config == nil {
				return errors.New("the Dockerfile's frontend made no image config")
			}
			ref, ok := b.result.FindRef(p.ID)
			if !ok {
				return fmt.Errorf("the Dockerfile's frontend made nothing for %s", p.ID)
			}
			built[i] = image.Built{
				Platform: v1.Platform{OS: p.Platform.OS, Architecture: p.Platform.Architecture, Variant: p.Platform.Variant},
				Config:   config,
				Name:     applicationName(b.opts, config),
				OneLayer: !b.merges(),
			}
			var layers []*scan.Layer
			if ref != nil { // else there are no files
				l, err := scan.Walk(gctx, tree{ref}, b.walkJobs())
				if err != nil {
					return fmt.Errorf("looking into the image for %s: %w", p.ID, err)
				}
				layers = append(layers, l)
			}
			built[i].Files = scan.Merge(layers...)
			return nil
		})
	}
	return built, g.Wait()
}

// merges says whether the builder can put layers together as they are.
func (b *build) merges() bool {
	caps := b.client.BuildOpts().LLBCaps
	return caps.Supports(pb.CapMergeOp) == nil
}

// add puts the layers of a plan on top of what was built.
func (b *build) add(ctx context.Context, platform exptypes.Platform, p *image.BuiltPlan) (client.Reference, error) {
	ref, _ := b.result.FindRef(platform.ID)
	app := llb.Scratch()
	if ref != nil {
		var err error
		if app, err = ref.ToState(); err != nil {
			return nil, fmt.Errorf("reading what was built for %s: %w", platform.ID, err)
		}
	}
	s := stack{platform: llb.Platform(platform.Platform), prefix: "[imgwrap] "}
	if b.result.Refs != nil {
		s.prefix = fmt.Sprintf("[imgwrap %s] ", platform.ID)
	}
	for _, l := range p.Added {
		if l.Tag == "" {
			archive, err := readAll(l)
			if err != nil {
				return nil, fmt.Errorf("making the launch layer: %w", err)
			}
			s.launch = archive
			continue
		}
		pinned, err := b.resolve(ctx, l, platform)
		if err != nil {
			return nil, err
		}
		s.shared = append(s.shared, llb.Image(pinned.String(), s.platform, llb.WithCustomName(s.prefix+l.Brings)))
	}
	state, err := s.onto(app, b.merges())
	if err != nil {
		return nil, err
	}
	return b.solve(ctx, state, s.platform)
}

func (b *build) solve(ctx context.Context, state llb.State, opts ...llb.ConstraintsOpt) (client.Reference, error) {
	def, err := state.Marshal(ctx, append(opts, llb.WithCaps(b.client.BuildOpts().LLBCaps))...)
	if err != nil {
		return nil, fmt.Errorf("describing the layers to the builder: %w", err)
	}
	res, err := b.client.Solve(ctx, client.SolveRequest{Definition: def.ToPB()})
	if err != nil {
		return nil, err
	}
	return res.SingleRef()
}

func readAll(l image.BuiltLayer) ([]byte, error) {
	r, err := l.Archive()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}
