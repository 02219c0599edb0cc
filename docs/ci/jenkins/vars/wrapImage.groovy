/**
 * Wraps an image that is in a registry, and returns [image:, tag:, digest:] of the result.
 *
 *     def otel = wrapImage(image: 'registry.example.com/shop/cart:1.4', endpoint: 'http://collector:4318')
 *     echo "deploying ${otel.image}@${otel.digest}"
 *
 * imgwrap is on the PATH of the agent or the container. What else it takes is flags:
 * args: ['--config=imgwrap.yaml'].
 */
Map call(Map options) {
    List<String> flags = []
    if (options.endpoint) { flags << "--endpoint=${options.endpoint}" }
    if (options.serviceName) { flags << "--service-name=${options.serviceName}" }
    if (options.tag) { flags << "--tag=${options.tag}" }
    flags.addAll(options.args ?: [])
    String words = (flags + ['--', options.image]).collect { quoted(it.toString()) }.join(' ')
    String result = sh(
        label: "imgwrap ${options.image}",
        script: "imgwrap wrap --output=env --report=imgwrap.md ${words}",
        returnStdout: true
    )
    archiveArtifacts artifacts: 'imgwrap.md'
    return result.trim().readLines().collectEntries { line ->
        int equals = line.indexOf('=')
        [line.substring(0, equals), line.substring(equals + 1)]
    }
}

/** A word of a shell's command line, whatever is in it. */
private String quoted(String word) {
    return "'" + word.replace("'", "'\\''") + "'"
}
