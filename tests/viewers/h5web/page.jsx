// Shows shard.h5, which lies beside the page, at the object that ?path= names, or as its root's default plot.
import '@h5web/app/dist/styles.css';

import { App } from '@h5web/app';
import { H5WasmBufferProvider } from '@h5web/h5wasm';
import { createRoot } from 'react-dom/client';

const path = new URLSearchParams(window.location.search).get('path') ?? '/';
const response = await fetch('shard.h5');
if (!response.ok) {
  throw new Error(`shard.h5: ${response.status} ${response.statusText}`);
}
const buffer = await response.arrayBuffer();

createRoot(document.getElementById('root')).render(
  <H5WasmBufferProvider filename="shard.h5" buffer={buffer}>
    <App initialPath={path} disableDarkMode propagateErrors />
  </H5WasmBufferProvider>,
);
