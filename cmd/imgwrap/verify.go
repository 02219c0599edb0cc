package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/imgwrap/imgwrap/image"
)

func (a *app) verifyCommand() *cobra.Command {
	var out output
	var t trial
	opts := image.VerifyOptions{Version: imgwrapVersion()}
	cmd := &cobra.Command{
		Use:   "verify IMAGE",
		Short: "Check that a wrapped image is what imgwrap makes of its source",
		Long: `verify reads all of a wrapped image and checks that it is what imgwrap makes of its
source: the source's layers are there, the added ones are the catalog's and lead
the image's Python to OpenTelemetry, and nothing else was changed. The first
difference ends it with exit code 4.

With --run it starts the image with podman or docker, too, and waits for spans.`,
		Example: `  imgwrap verify registry.example.com/app:1.0-otel
  imgwrap verify registry.example.com/app:1.0-otel --run --url /health --port 8000`,
		Args: oneImage,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := t.check(cmd.Flags()); err != nil {
				return err
			}
			if err := out.open(); err != nil {
				return err
			}
			defer out.close()
			r, err := a.verify(cmd.Context(), args[0], opts, t)
			if err != nil {
				return err
			}
			return errors.Join(out.print(a.out, r, r.write), r.Err())
		},
	}
	out.register(cmd.Flags())
	cmd.Flags().StringSliceVar(&opts.Platforms, "platform", nil, "of an index, the platforms to verify, such as linux/arm64 (default: all)")
	t.register(cmd.Flags())
	return cmd
}

// verification is what verify prints.
type verification struct {
	*image.Verification
	Run *trialReport `json:"run,omitempty"` // nil if the image was not started
}

func (a *app) verify(ctx context.Context, ref string, opts image.VerifyOptions, t trial) (*verification, error) {
	w, done, err := a.wrapper()
	if err != nil {
		return nil, err
	}
	v, err := w.Verify(ctx, ref, opts)
	done()
	if err != nil {
		return nil, err
	}
	r := &verification{Verification: v}
	if !t.run {
		return r, nil
	}
	if v.Err() != nil {
		a.log.Warn("the image is not started: it is not what it should be")
		return r, nil
	}
	reference, err := w.Registry.ParseReference(ref)
	if err != nil {
		return nil, err
	}
	t.insecure = a.insecure
	if len(opts.Platforms) == 1 {
		t.platform = opts.Platforms[0]
	}
	r.Run, err = t.start(ctx, reference, v.Digest)
	if err != nil {
		return nil, err
	}
	v.Checks = append(v.Checks, r.Run.check())
	return r, nil
}

func (r *verification) write(w io.Writer) error {
	for _, c := range r.Checks {
		verdict := "ok"
		if !c.OK {
			verdict = "not ok"
		}
		fmt.Fprintf(w, "%-6s  %s\n", verdict, c)
	}
	for _, k := range r.Kept {
		fmt.Fprintf(w, "%-6s  %s: %s\n", "-", k.Name, k.Reason)
	}
	return nil
}
