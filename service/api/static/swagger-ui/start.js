// Remora's own: starts the vendored Swagger UI. It stands in a file because the page's policy allows no inline scripts.
window.ui = SwaggerUIBundle({
  url: new URL("../openapi.json", document.currentScript.src).href,
  dom_id: "#swagger-ui",
  deepLinking: true,
  persistAuthorization: false,
  validatorUrl: null, // would send the document to validator.swagger.io
  presets: [SwaggerUIBundle.presets.apis],
});
