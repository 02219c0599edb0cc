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
	interpreter := ""
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
			in, err := w.Inspect(cmd.Context(), args[0], interpreter)
			done()
			if err != nil {
				return err
			}
			return out.print(a.out, in, func(w io.Writer) error { return writeInspection(w, in) })
		},
	}
	out.register(cmd.Flags())
	cmd.Flags().StringVar(&interpreter, "python", "", "path of the interpreter to look at")
	return cmd
}

// writeInspection prints an inspection for people.
func writeInspection(w io.Writer, in *image.Inspection) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(cells ...string) { fmt.Fprintln(t, strings.Join(cells, "\t")) }
	row("image", in.Image)
	row("", in.Digest)
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
		return t.Flush()
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
	return t.Flush()
}
