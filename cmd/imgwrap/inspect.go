package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/imgwrap/imgwrap/image"
)

func (a *app) inspectCommand() *cobra.Command {
	var out output
	var interpreter string
	var platforms []string
	cmd := &cobra.Command{
		Use:   "inspect IMAGE",
		Short: "Show what is in an image: what it runs, its Python, its distributions",
		Args:  oneImage,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := out.open(); err != nil {
				return err
			}
			defer out.close()
			w, done, err := a.wrapper()
			if err != nil {
				return err
			}
			in, err := w.Inspect(cmd.Context(), args[0], interpreter, platforms)
			done()
			if err != nil {
				return err
			}
			return out.print(a.out, in, func(w io.Writer) error { return writeInspection(w, in) })
		},
	}
	out.register(cmd.Flags())
	cmd.Flags().StringVar(&interpreter, "python", "", "path of the interpreter to look at")
	cmd.Flags().StringSliceVar(&platforms, "platform", nil, "of an index, the platforms to look at, such as linux/arm64 (default: all)")
	return cmd
}

// writeInspection prints an inspection for people.
func writeInspection(w io.Writer, in *image.Inspection) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "image\t%s\n\t%s\n", in.Image, in.Digest)
	if in.ImageInspection != nil {
		writeImageInspection(t, in.ImageInspection)
	}
	for _, im := range in.Images {
		fmt.Fprintf(t, "\n%s\t%s\n", im.Platform, im.Digest)
		writeImageInspection(t, im.ImageInspection)
	}
	writeKept(t, "Not looked at", in.Kept)
	return t.Flush()
}

func writeImageInspection(t io.Writer, in *image.ImageInspection) {
	row := func(cells ...string) { fmt.Fprintln(t, strings.Join(cells, "\t")) }
	row("platform", in.Platform)
	if in.Wrapped != nil {
		row("wrapped", fmt.Sprintf("from %s with OpenTelemetry %s by imgwrap %s; what follows is the source", in.Wrapped.Source, in.Wrapped.Release, in.Wrapped.Version))
	}
	row("ENTRYPOINT", quoted(in.Entrypoint))
	row("CMD", quoted(in.Cmd))
	row("WORKDIR", in.WorkingDir)
	row("USER", in.User)
	if len(in.Interpreters) > 0 {
		fmt.Fprintln(t, "\nPythons in it")
	}
	for _, i := range in.Interpreters {
		row("  "+i.Path, fmt.Sprintf("%s %s, %d distributions", i.Implementation, i.Version, i.Distributions))
	}
	if in.Problem != "" {
		row("python", in.Problem)
		return
	}
	writeRuns(t, in.Platform, *in.Interpreter, *in.Command)
	writeDjango(t, in.Django)
	for i, site := range in.Sites {
		if i == 0 {
			row("  sys.path", site)
		} else {
			row("", site)
		}
	}
	fmt.Fprintln(t, "\nDistributions")
	for _, d := range in.Distributions {
		row("  "+d.Name, d.Version, d.Path)
	}
	if len(in.Shadowed) > 0 {
		fmt.Fprintln(t, "\nShadowed by another of the same name")
		for _, d := range in.Shadowed {
			row("  "+d.Name, d.Version, d.Path)
		}
	}
	writeList(t, "Warnings", in.Warnings)
}
